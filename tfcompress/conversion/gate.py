"""The gate behind every conversion: does the file run everywhere, and does it still say what the model says?"""

import time
from dataclasses import dataclass, field

import numpy as np

from tfcompress.conversion import islands
from tfcompress.conversion.batches import load_batches, save_batches
from tfcompress.conversion.worker import ConversionError, worker

SETTINGS = tuple((runtime, delegate) for runtime in ("ai_edge_litert", "tf.lite") for delegate in (True, False))
SAMPLES, AT_ONCE = 96, 2
LIMIT = 10.0  # seconds a setting may run: a file of slow kernels (ResNet50 in int16x8: 4 s a sample) is judged on less


@dataclass(frozen=True)
class Agreement:
    """How far one output of the file is from the model's, on the gate's samples.

    ``unit`` is "LSB" (steps of the quantized output) or "absolute"; ``bit_equal`` is the share of equal values:
    equal quantized levels where the output is quantized, equal floats otherwise. ``top1`` is ``None`` for outputs that
    are not rows of at least two scores.
    """

    output: str
    unit: str
    max_difference: float
    mean_difference: float
    bit_equal: float
    top1: float | None


@dataclass(frozen=True)
class GateReport:
    """What the gate saw.

    Attributes:
        ran: settings the file loads and runs in, e.g. ``"ai_edge_litert, default delegate"``.
        float_islands: operations left float inside a quantized file, as ``"TYPE name"``.
        float_weights: operations whose weights stayed float32 in a compressed file.
        agreement: one ``Agreement`` an output, ai_edge_litert with its default delegate against ``reference``.
        elsewhere: largest difference to that run, in the other settings, in the output's unit.
        inputs: where the samples came from: "calibration data" or "random".
        reference: what the file was compared with.
        samples: how many; fewer than given where the file took more than ``LIMIT`` seconds.
        seconds: what the gate took.
        notes: fall-backs and fixed batches.
    """

    ran: tuple
    float_islands: tuple
    float_weights: tuple
    agreement: tuple
    elsewhere: dict
    inputs: str
    reference: str
    samples: int
    seconds: float
    notes: tuple = field(default=())

    def __str__(self):
        lines = [f"runs in: {'; '.join(self.ran)}"]
        lines += [f"compared with the {self.reference} on {self.samples} samples ({self.inputs}):"]
        for row in self.agreement:
            top1 = "" if row.top1 is None else f", top-1 {row.top1:.1%}"
            lines.append(
                f"  {row.output}: max {row.max_difference:.3g}, mean {row.mean_difference:.3g} ({row.unit}), "
                f"bit-equal {row.bit_equal:.1%}{top1}"
            )
        if self.elsewhere:
            kernels, difference = max(self.elsewhere.items(), key=lambda item: item[1])
            lines.append(f"  largest difference between the settings: {difference:.3g} ({kernels})")
        for title, names in (("float islands", self.float_islands), ("float weights", self.float_weights)):
            if names:
                lines.append(f"{title}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def check(path, precision, batches, expected, folder, *, inputs, reference, notes=(), bound=None, over=np.max):
    """Run the file everywhere and compare.

    Args:
        path: the ``.tflite`` file.
        batches: ``[{input name: array}]``, at most ``SAMPLES`` samples are used.
        expected: the model's outputs, batch after batch.
        folder: a temporary folder.
        inputs, reference, notes: words for the report.
        bound: how far outputs of up to 1 may be from the expected ones, in any setting; larger outputs in proportion.
        over: of the samples' distances, the one that ``bound`` is for: ``np.max`` or ``np.median``.

    Raises:
        ConversionError: the file does not load or run somewhere, gives NaN, or is farther off than ``bound``.
    """
    started = time.perf_counter()
    fed, few, answers, ran = folder / "gate.npz", folder / "gate_few.npz", folder / "gate_out.npz", []
    save_batches(fed, batches)
    save_batches(few, batches[:1])
    first, others = None, {}
    for runtime, delegate in SETTINGS:
        name = f"{runtime}, {'default delegate' if delegate else 'built-in kernels'}"
        main = first is None
        try:
            worker.run(
                "run", folder, file=str(path), batches=str(fed if main else few), output=str(answers),
                runtime=runtime, delegate=delegate, limit=LIMIT,
            )  # fmt: skip
        except ConversionError as error:
            raise ConversionError(
                f"The {precision} file does not run in {name}, so nothing was written. {error}"
            ) from error
        results = load_batches(answers)
        if main:
            first = results
        else:
            others[name] = results[0]
        ran.append(name)
    scales = islands.output_scales(path.read_bytes())
    elsewhere = {
        name: max(_distance(result[key], first[0][key], scales.get(key)) for key in result)
        for name, result in others.items()
    }
    expected = expected[: len(first)]
    agreement = tuple(compare(key, first, expected, scales.get(key)) for key in first[0])
    _refuse_nan(first, expected, precision)
    if bound is not None:
        _refuse_distance([first, *([result] for result in others.values())], expected, bound, over, precision)
    left_float, weights = islands.float_operations(path.read_bytes())
    return GateReport(
        ran=tuple(ran), float_islands=left_float, float_weights=weights if precision != "float32" else (),
        agreement=agreement, elsewhere=elsewhere, inputs=inputs, reference=reference,
        samples=sum(len(next(iter(b.values()))) for b in batches[: len(first)]),
        seconds=time.perf_counter() - started, notes=(*notes, *islands.notes(path.read_bytes(), precision)),
    )  # fmt: skip


def _refuse_nan(results, expected, precision):
    for got, wanted in zip(results, expected, strict=True):
        for name, values in got.items():
            if not np.isfinite(values).all() and np.isfinite(wanted[name]).all():
                raise ConversionError(
                    f"The {precision} file gives NaN or infinity where the model gives numbers ({name!r})."
                )


def _refuse_distance(runs, expected, bound, over, precision):
    """``runs``: what each setting gave, batch after batch; some ran the first batch alone."""
    for run in runs:
        for name, off in distances(run, expected, over).items():
            if off > bound:
                typical = "" if over is np.max else " in a typical sample"
                raise ConversionError(
                    f"The {precision} file's output {name!r} is {off:.3g} from the model's{typical}, "
                    f"more than {bound:.3g} (outputs above 1: in units of the largest)."
                )


def distances(results, expected, over=np.max):
    """``{output: distance}``, ``over`` the samples, of outputs of up to 1; in units of the largest where that is more.

    Args:
        results: outputs by name, batch after batch, maybe of the first batches alone.
        expected: the same, of all batches.
    """
    found = {}
    for name in expected[0]:
        largest, samples = max(float(np.max(np.abs(batch[name]), initial=1.0)) for batch in expected), []
        for got, wanted in zip(results, expected, strict=False):
            got, wanted = np.atleast_1d(got[name]).astype(np.float64), np.atleast_1d(wanted[name])
            samples.append(np.abs(got - wanted[: len(got)]).reshape(len(got), -1).max(axis=1, initial=0.0))
        found[name] = float(over(np.concatenate(samples))) / largest
    return found


def _distance(got, wanted, scale):
    wanted = wanted[: len(got)] if np.ndim(got) else wanted
    return float(np.max(np.abs(got.astype(np.float64) - wanted), initial=0.0) / ((scale and scale[0]) or 1.0))


def compare(name, results, expected, scale):
    """``Agreement`` of one output; ``scale`` is ``(scale, zero point, smallest level, largest level)`` or None."""
    got = np.concatenate([np.atleast_1d(r[name]) for r in results]).astype(np.float64)
    wanted = np.concatenate([np.atleast_1d(e[name]) for e in expected]).astype(np.float64)
    if got.shape != wanted.shape:
        raise ConversionError(f"Output {name!r} of the file has shape {got.shape}, the model's has {wanted.shape}.")
    top1 = None
    if got.ndim == 2 and got.shape[1] > 1:
        top1 = float(np.mean(got.argmax(1) == wanted.argmax(1)))
    unit = "absolute"
    if scale:
        step, zero, low, high = scale
        got, wanted = (np.clip(np.round(v / step) + zero, low, high) for v in (got, wanted))
        unit = "LSB"
    difference = np.abs(got - wanted)
    return Agreement(
        name, unit, float(difference.max(initial=0)), float(difference.mean()), float(np.mean(got == wanted)), top1
    )
