"""``one_click``: a trained model becomes a small or a fast ``.tflite`` in seconds, and no data is asked for.

1. TFLiteConverter makes the float file; batch normalization is folded in it.
2. Inputs are synthesized (``data_free.synthesis``): noise with the spectrum of pictures, changed until the batch
   normalizations see what they remember.
3. The float file runs on them: ranges of activations, second moments of what each kernel is multiplied with.
4. Kernels are rounded to eight bits a channel so that their outputs change least, biases take back the mean of what is
   left (Nagel et al., arXiv:1906.04721); where nothing vouches for the inputs, each only where it pays
   (``data_free.choose``). Where the target asks for fewer bytes, kernels lose bits greedily, the one first that adds
   least noise for each byte.
5. "fast": activations are int8, too, where batch normalizations vouch for their ranges. Else weights are stored as
   integers and computed with as floats.
6. The file is checked on two run times with two sets of kernels, and compared with the float file.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from android_bench.metrics import agreement
from tfcompress.conversion import gate, source
from tfcompress.conversion.batches import save_ranges
from tfcompress.conversion.pipeline import Pipeline
from tfcompress.conversion.worker import worker
from tfcompress.convert import TFLiteModel
from tfcompress.data_free import adapt, choose, moments, ranges
from tfcompress.data_free.equalize import equalize
from tfcompress.data_free.expand import expand
from tfcompress.data_free.plan import plan
from tfcompress.data_free.spare import without_waste
from tfcompress.data_free.synthesis import synthesize
from tfcompress.flatbuffer import read
from tfcompress.macs import file_macs
from tfcompress.measure import run, snr_db
from tfcompress.pack import packing

TARGETS = ("small", "fast")
LEAST_DB = 12.0  # of an int8 file against the float file, on synthetic inputs; below it activations stay float
TRIES = 4  # files made on the way to a number of bytes
EQUALIZED = 1e9  # multiply-accumulates of all inputs together up to which equalization is tried beside plain kernels


@dataclass(frozen=True)
class OneClick:
    """What ``one_click`` gives back; ``print`` shows it, ``data_free.report.write_report`` makes a page of it.

    Attributes:
        file: the ``TFLiteModel``, run in four settings by its gate; packed: the same, entropy-coded (``unpack``).
        target: what was asked for; met: whether it is held.
        float_bytes: of the float file, or of the ``.tflite`` file that was given.
        macs: multiply-accumulates of one run of it.
        kernels: a ``data_free.adapt.Rounded`` for each constant that operations multiply with.
        synthetic: ``data_free.synthesis.Synthetic``, the inputs and where they come from.
        snr_db, top1: 10 log10(signal / noise) of the worst output, and the share of equal classes (None where outputs
            are no classes), of the file against the float file on **synthetic** inputs.
        seconds: what each step took; "float" is TFLiteConverter's.
        notes: what could not be done.
    """

    file: TFLiteModel
    packed: bytes
    target: object
    met: bool
    float_bytes: int
    macs: int
    kernels: tuple
    synthetic: object
    snr_db: float
    top1: float | None
    seconds: dict
    notes: tuple = ()

    def __str__(self):
        bits = sorted({one.bits for one in self.kernels}, reverse=True)
        counts = ", ".join(f"{sum(one.bits == width for one in self.kernels)} of {width} bits" for width in bits)
        classes = "" if self.top1 is None else f", top-1 equal {self.top1:.1%}"
        after = sum(took for step, took in self.seconds.items() if step != "float")
        return "\n".join([
            f"{self.float_bytes:,} -> {self.file.size:,} bytes ({times(self.float_bytes, self.file.size)}), "
            f"packed {len(self.packed):,} ({times(self.float_bytes, len(self.packed))})",
            f"target {in_words(self.target)}: {'met' if self.met else 'NOT MET, this is the nearest'}; "
            f"{self.file.precision}",
            f"kernels: {counts}",
            "no real data was seen: accuracy is not measured. On synthetic inputs, against the float file: "
            f"{self.snr_db:.1f} dB{classes}",
            str(self.synthetic),
            f"{after:.1f} s after the float file, which took {self.seconds.get('float', 0.0):.1f} s",
            *(f"note: {note}" for note in self.notes),
        ])


def one_click(model_or_path, target="small", *, seed=0):
    """Compress a trained model without data.

    Args:
        model_or_path: a Functional or Sequential Keras 3 or tf_keras model; a path (.keras, .h5, SavedModel folder,
            float .tflite); or the bytes of a float .tflite file.
        target: "small": weights of eight bits, as without data nothing vouches for fewer; activations stay float.
            "fast": activations are eight bits, too, where the model's batch normalizations tell their ranges. A number
            above 1: so many times fewer bytes than the float file, kernels get four or two bits where they must; a
            number above 1000: bytes of the ``.tflite`` file.
        seed: of the synthetic inputs.

    Returns:
        A ``OneClick``. Where a number can't be met, ``met`` is False and the file is the smallest that can be made.

    Raises:
        ValueError: a bad target, path or model.
        ConversionError: TensorFlow can't convert the model, or the file does not run.

    >>> import keras
    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(),
    ...           keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    >>> found = one_click(keras.Sequential(layers), "fast")
    >>> found.file.precision, found.met, found.kernels[0].bits
    ('int8', True, 8)
    """
    _check(target)
    worker.start()
    origin = source.read(model_or_path)
    if origin.kind == "keras":
        lean, words = without_waste(origin.value)
        origin = source.read(lean) if words else origin
        origin.notes += [f"nothing is lost by it: {one}" for one in words]
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        return _Click(origin, Path(name), target, seed).run()


def _check(target):
    number = isinstance(target, int | float) and not isinstance(target, bool) and target > 1
    if target not in TARGETS and not number:
        raise ValueError(f"`target` is 'small', 'fast', a ratio above 1 or bytes of the file. Received: {target!r}.")


class _Click:
    """One call of ``one_click``: its files in a folder, and a clock."""

    def __init__(self, origin, folder, target, seed):
        self.pipeline, self.folder, self.target, self.seed = Pipeline(origin, folder), folder, target, seed
        self.seconds, self.notes = {}, list(origin.notes)
        given = self.pipeline.float_file.read_bytes()
        self.float_bytes, self.content = len(given), expand(given)
        self.unpacked = len(self.content) > len(given) + 1024
        self.seconds["float"] = self.pipeline.seconds.get("float", 0.0)
        self.graph, self.macs = read(self.content).graphs[0], file_macs(self.content)

    def run(self):
        self.synthetic = self._timed("synthesize", self._inputs)
        inputs = self.synthetic.inputs
        kernels, self.ranges, self.wanted = self._timed("observe", moments.observe, self.content, inputs)
        if not self.synthetic.norms and not self.synthetic.given:
            kernels = moments.without_features(kernels, self.graph)
        path, precision, rounded, met = self._timed("quantize", self._made, kernels)
        report = self._timed("check", self._gate, path, precision)
        content = path.read_bytes()
        packed = self._timed("pack", packing, content, fast=True).content
        if len(content) >= self.float_bytes:
            why = ("its weights were stored in fewer bytes (float16, or zeros left out)" if self.unpacked else
                   "its weights are so few that scales and operations that unpack them take more")
            self.notes.append(f"the file is not smaller than the one given: {why}; packed it takes {len(packed):,}")
            met = met and self.target == "fast"
        got = self._timed("compare", run, content, inputs, threads=2)
        return OneClick(TFLiteModel(content, precision, report, dict(self.seconds)), packed, self.target, met,
                        self.float_bytes, self.macs, tuple(rounded), self.synthetic, snr_db(got, self.wanted),
                        _top1(got, self.wanted), self.seconds, tuple(dict.fromkeys(self.notes)))

    def _timed(self, step, function, *arguments, **options):
        started = time.perf_counter()
        found = function(*arguments, **options)
        self.seconds[step] = time.perf_counter() - started
        return found

    def _inputs(self):
        self.pipeline.bind(None)
        return synthesize(self.pipeline.origin, self.pipeline.inputs, self.macs, self.seed)

    def _made(self, kernels):
        """``(path, precision, rounded kernels, whether the target is met)``."""
        if self.target == "fast":
            return *self._fast(kernels), True
        goal = None
        if self.target != "small":
            goal = self.target if self.target > 1000 else self.float_bytes / self.target
        path, to_save = self.folder / "small.tflite", 0
        for _ in range(TRIES):
            chosen = plan(kernels, to_save)
            rounded = self._better(self.content, chosen.rounded)
            path.write_bytes(adapt.stored(self.content, rounded))
            excess = 0 if goal is None else path.stat().st_size - goal
            if excess <= 0 or chosen.saved < to_save:
                break
            to_save = chosen.saved + excess
        if any(one.bits < 8 for one in rounded):
            self.notes.append("kernels of fewer than 8 bits are unpacked at every run, convolutions by slower kernels: "
                              "where time counts more than bytes, use 'fast'")
        return path, "exact" if any(one.bits < 8 for one in rounded) else "exact8", rounded, excess <= 0

    def _fast(self, kernels):
        rounded = self._better(self.content, adapt.nearest(kernels))
        made = self._quantized(self.content, rounded, self.ranges)
        if made[1] == "int8" and self.macs * len(self.wanted[0]) <= EQUALIZED:
            even, groups = equalize(self.content, self.graph, self.ranges)
            if groups:
                watched, spans, _ = moments.observe(even, self.synthetic.inputs)
                other = self._better(even, adapt.nearest(watched))
                tried = self._quantized(even, other, spans)
                if tried[2] > made[2]:
                    made, rounded = tried, other
                    self.notes.append(f"{groups} groups of channels are equalized across layers")
        return made[0], made[1], rounded

    def _quantized(self, content, rounded, spans):
        """``(path, precision, dB)``: static int8 where it is good enough on synthetic inputs, else dynamic."""
        adapted = self.folder / "adapted.tflite"
        adapted.write_bytes(adapt.apply(content, rounded))
        doubts = self.synthetic.doubts(len(rounded))
        ways = ("dynamic",) if doubts else ("int8", "dynamic")
        kept = [] if self.synthetic.given else ranges.first_operations(self.graph)
        for precision in ways:
            path, limits = self.folder / f"{precision}_{len(list(self.folder.iterdir()))}.tflite", None
            if precision == "int8":
                limits = str(self.folder / "ranges.json")
                save_ranges(limits, ranges.settle(self.graph, spans))
            notes = worker.run("quantize", self.folder, float_file=str(adapted), precision=precision,
                               output=str(path), ranges=limits, keep_float=kept if limits else ())
            found = snr_db(run(path.read_bytes(), self.synthetic.inputs, threads=2), self.wanted)
            if precision == "dynamic" or found >= LEAST_DB:
                break
        if precision == "dynamic":
            why = doubts or f"int8 ones do not reach {LEAST_DB:.0f} dB"
            self.notes.append(f"activations are quantized as the file runs (dynamic): {why}")
        elif kept:
            self.notes.append("the first layer is float: without data the range of the inputs is a guess")
        self.notes += notes
        return path, precision, found

    def _better(self, content, rounded):
        """Better codes than the nearest, and biases for them: by descent where the inputs can be trusted."""
        if not self.synthetic.doubts(len(rounded)):
            return adapt.descended(rounded)
        return choose.better(content, rounded, self.synthetic.inputs, self.wanted, self.macs)

    def _gate(self, path, precision):
        few = {name: array[: gate.AT_ONCE] for name, array in self.synthetic.inputs.items()}
        fixed = {spec.shape[0] for spec in self.pipeline.inputs.values() if spec.shape} - {None}
        few = {name: array[: min(fixed)] for name, array in few.items()} if fixed else few
        names = [name for name, _ in sorted(read(self.content).signatures[0].outputs.items(), key=self._place)]
        count = len(next(iter(few.values())))
        wanted = [{name: value[:count] for name, value in zip(names, self.wanted, strict=True)}]
        return gate.check(path, precision, [few], wanted, self.folder, inputs="synthetic inputs",
                          reference="float .tflite file")

    def _place(self, pair):
        return self.graph.outputs.index(pair[1])


def in_words(target):
    """A target as a person reads it.

    >>> in_words("small"), in_words(8.0), in_words(40000.0)
    ('small', '8 times smaller', '40,000 bytes')
    """
    if isinstance(target, str):
        return target
    return f"{target:g} times smaller" if target <= 1000 else f"{target:,.0f} bytes"


def times(before, after):
    """How many times smaller or larger.

    >>> times(400, 100), times(92, 100)
    ('4.00x smaller', '1.09x larger')
    """
    return f"{before / after:.2f}x smaller" if after <= before else f"{after / before:.2f}x larger"


def _top1(got, wanted):
    first = np.asarray(wanted[0])
    return agreement(got[0], first) if first.ndim == 2 and first.shape[1] > 1 else None
