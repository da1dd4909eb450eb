"""What a `.tflite` file does and weighs, measured on the file itself: the thing that ships."""

import dataclasses
import gzip
import lzma
from collections.abc import Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from android_bench.metrics import Metrics, metrics
from tfcompress import flatbuffer
from tfcompress.pack import Packing, packing
from tfcompress.weights import weights

_CHUNK = 2**20  # input elements a batch: bounds the memory


def evaluate(model, x, y, *, class_names=None, threads: int = 1) -> Metrics:
    """Run a classifier's `.tflite` on `x` and judge its first output by `y`.

    Args:
        model: a path, bytes, or a TFLiteModel.
        x: (samples, ...) array, or several by input name or in order; float values also where the file takes int8.
        y: class numbers (samples,) or one-hot (samples, classes).
        class_names: names for the recalls, in order of the class numbers.

    Raises:
        ValueError: not a `.tflite` file, data of another shape than the model's, no samples, NaN outputs.
    """
    return metrics(y, run(model, x, threads=threads)[0], class_names)


def run(model, x, *, threads: int = 1, xnnpack: bool = True) -> list[np.ndarray]:
    """The outputs of a `.tflite` file, in the file's order, as real values (dequantized by the file's scales).

    Batched where the file's batch is dynamic, else as many samples at a time as the file takes.

    Args:
        model: a path, bytes, or a TFLiteModel.
        x: one (samples, ...) array, a list of them in the file's order, or a dict by input name. Float values are
            quantized where the file takes int8; values already of the input's dtype go in as they are.

    Raises:
        ValueError: not a `.tflite` file, an input that lacks or has another shape or kind than the model's.
    """
    content = flatbuffer.read(model).content
    interpreter = load(content, threads=threads, xnnpack=xnnpack)
    fixed, collected = fixed_batch(interpreter), []
    for count in feed(interpreter, x, content):
        details = interpreter.get_output_details()
        outputs = [real(interpreter.get_tensor(detail["index"]), detail) for detail in details]
        collected.append([part[:count] if part.ndim and len(part) == fixed else part for part in outputs])
    return [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*collected, strict=True)]


def sizes(model) -> tuple[int, int]:
    """Bytes of the file, and of the file after gzip -9 (as an app store ships it).

    >>> raw, packed = sizes(open("model.tflite", "rb").read())  # doctest: +SKIP
    """
    content = flatbuffer.content_of(model)
    return len(content), len(gzip.compress(content, 9, mtime=0))


@dataclasses.dataclass(frozen=True)
class Storage:
    """Bytes of one file in each form; `entropy` is the order-0 bound of `tfcompress.pack.Packing.entropy_bytes`."""

    raw: int
    gzip: int
    xz: int
    packed: int
    entropy: int

    def __str__(self):
        forms = (("file", self.raw), ("gzip -9", self.gzip), ("xz -6", self.xz), ("packed", self.packed),
                 ("entropy bound", self.entropy))
        return "\n".join(f"{name:14}{size:>14,} bytes{self.raw / max(size, 1):>9.2f}x" for name, size in forms)


def storage(model, packed: Packing | None = None) -> Storage:
    """Bytes of the file as it is, by gzip -9, by xz -6, packed, and the entropy bound of what is packed.

    Args:
        model: a path, bytes, or a TFLiteModel.
        packed: what `tfcompress.pack.packing(model)` gave, if it was called already: it takes seconds.
    """
    raw, zipped = sizes(model)
    packed = packing(model) if packed is None else packed
    xz = len(lzma.compress(flatbuffer.content_of(model), preset=6))
    return Storage(raw, zipped, xz, len(packed.content), round(packed.entropy_bytes))


def sparsity(model) -> float:
    """Share of weights, 0..1, that are exactly zero in the file, after conversion. Biases are not weights."""
    found = list(weights(flatbuffer.read(model)))
    total = sum(weight.tensor.size for weight in found)
    return sum(weight.zeros for weight in found) / total if total else 0.0


def levels(model) -> int:
    """Distinct values in the output channel that has most of them, over all weight tensors of the file.

    Ternary weights give 3, int8 at most 255 or 256, float32 about as many as a channel has weights.
    """
    return max((weight.levels or 0 for weight in weights(flatbuffer.read(model))), default=0)


def _ordered(x, details, content) -> list[np.ndarray]:
    """The arrays in the order of the file's inputs."""
    if isinstance(x, dict):
        names = {detail["name"]: detail["index"] for detail in details}
        for signature in flatbuffer.read(content).signatures:
            if signature.graph == 0:
                names |= signature.inputs
        by_index = {names[key]: value for key, value in x.items() if key in names}
        if len(by_index) != len(x) or len(by_index) != len(details):
            raise ValueError(f"Expected one array for each input: {sorted(names)}. Received: {sorted(x)}")
        return [np.asarray(by_index[detail["index"]]) for detail in details]
    arrays = [np.asarray(array) for array in x] if isinstance(x, list | tuple) else [np.asarray(x)]
    if len(arrays) != len(details):
        names = [detail["name"] for detail in details]
        raise ValueError(f"The model has {len(details)} inputs: {names}. Received: {len(arrays)} arrays")
    return arrays


def _fit(array: np.ndarray, detail) -> np.ndarray:
    """The array in the input's dtype; its shape checked against the model's."""
    expected = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    fits = array.ndim == len(expected) and all(
        want in (-1, got) for want, got in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"Input {detail['name']!r} takes {tuple(int(n) for n in expected)} (first axis: samples, -1: any). "
            f"Received: {array.shape}"
        )
    scale, zero = detail["quantization"]
    if array.dtype == detail["dtype"]:
        return array
    if scale:
        limits = np.iinfo(detail["dtype"])
        return np.clip(np.round(array / np.float32(scale)) + zero, limits.min, limits.max).astype(detail["dtype"])
    if np.issubdtype(detail["dtype"], np.integer) and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"Input {detail['name']!r} takes {detail['dtype'].__name__}. Received: {array.dtype} values")
    return array.astype(detail["dtype"])


def load(content: bytes, *, threads: int = 1, xnnpack: bool = True, keep_all: bool = False) -> Interpreter:
    """An interpreter of the file; `keep_all` keeps the values of every tensor readable after a run."""
    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        return Interpreter(
            model_content=content, num_threads=threads, experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=keep_all,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"LiteRT can't load this .tflite file of {len(content)} bytes: {error}") from None


def fixed_batch(interpreter) -> int | None:
    """How many samples the file takes at a time; None if any number."""
    details = interpreter.get_input_details()
    if all(len(detail["shape_signature"]) and detail["shape_signature"][0] == -1 for detail in details):
        return None
    return int(details[0]["shape"][0])


def feed(interpreter, x, content: bytes, step: int | None = None) -> Iterator[int]:
    """Run the interpreter over `x`, some samples at a time, and yield how many after each run.

    The last batch is filled up with copies of the last sample where the file's batch is fixed.
    """
    details = interpreter.get_input_details()
    arrays = [_fit(array, detail) for array, detail in zip(_ordered(x, details, content), details, strict=True)]
    samples = {len(array) for array in arrays}
    if len(samples) != 1 or samples == {0}:
        raise ValueError(f"Expected inputs of the same length, one sample or more. Received: {sorted(samples)}")
    fixed = fixed_batch(interpreter)
    largest = max(array[0].size for array in arrays)
    step = fixed or step or min(256, max(1, _CHUNK // max(1, largest)))
    shapes = None
    for start in range(0, samples.pop(), step):
        chunk = [array[start : start + step] for array in arrays]
        count = len(chunk[0])
        if fixed and count < step:
            chunk = [np.concatenate([part, np.repeat(part[-1:], step - count, axis=0)]) for part in chunk]
        if shapes != [part.shape for part in chunk]:
            shapes = [part.shape for part in chunk]
            for detail, part in zip(details, chunk, strict=True):
                interpreter.resize_tensor_input(detail["index"], part.shape)
            interpreter.allocate_tensors()
        for detail, part in zip(details, chunk, strict=True):
            interpreter.set_tensor(detail["index"], part)
        interpreter.reset_all_variables()
        interpreter.invoke()
        yield count


def real(values: np.ndarray, detail) -> np.ndarray:
    """Real values of a tensor that may be quantized (one scale for the whole tensor)."""
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale) if scale else values


def snr_db(got, wanted):
    """10 log10(signal / noise) of the output that came out worst; 120 at most.

    >>> round(snr_db([np.array([1.1, 2.0])], [np.array([1.0, 2.0])]), 1)
    27.0
    """
    found = []
    for mine, signal in zip(got, wanted, strict=True):
        signal = np.asarray(signal, np.float64)
        noise, power = float(((mine - signal) ** 2).sum()), float((signal**2).sum())
        found.append(10 * np.log10(power / noise) if noise and power else 120.0)
    return float(min([*found, 120.0]))
