"""What a phone is given and what this computer makes of it: input bytes, output bytes, and how they are cut."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from android_bench import child, host

MAX_BATCH, MAX_BATCH_BYTES = 256, 4_000_000
CHECKED = 8  # samples that must come out of a batch as they do alone


@dataclasses.dataclass(frozen=True)
class Layer:
    """An input or output of the file: `shape` is that of one chunk, batch axis included."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero: int


@dataclasses.dataclass(frozen=True)
class Reference:
    """Inputs packed for a phone, and this computer's outputs for them.

    `packs[k]` holds the raw bytes of input k for all samples, `chunk` samples a run; the last chunk is filled up with
    copies of the last sample. `how` says in words how many samples go into one run, and why.
    """

    samples: int
    chunk: int
    dynamic: bool  # the file takes any batch
    how: str
    inputs: tuple[Layer, ...]
    outputs: tuple[Layer, ...]
    packs: tuple[bytes, ...] = dataclasses.field(repr=False)
    content: bytes = dataclasses.field(repr=False)  # of all outputs, as a phone writes them

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """This computer's first output, as `read` gives it."""
        return self.read(self.content)

    @property
    def chunks(self) -> int:
        return -(-self.samples // self.chunk)

    @property
    def chunk_bytes(self) -> int:
        """Bytes that one run writes: all outputs, one after the other."""
        return sum(int(np.prod(layer.shape)) * np.dtype(layer.dtype).itemsize for layer in self.outputs)

    def read(self, content: bytes) -> np.ndarray:
        """The first output's rows, float32 (samples, ...), out of the bytes that the phone's runs wrote.

        Raises:
            ValueError: another number of bytes than the runs write, or NaN.
        """
        scores = self._values(content)[0].reshape(-1, *self.outputs[0].shape[1:])[: self.samples]
        if not np.isfinite(scores).all():
            raise ValueError("The outputs hold NaN or infinity.")
        return scores

    def differences(self, content: bytes) -> dict[str, float | None]:
        """The largest difference between the phone's outputs and this computer's, by the output's name, in its unit.

        None where one of the two has NaN or infinity.
        """
        pairs = zip(self.outputs, self._values(content), self._values(self.content), strict=True)
        with np.errstate(invalid="ignore"):
            found = {layer.name: float(np.max(np.abs(there - here), initial=0)) for layer, there, here in pairs}
        return {name: value if np.isfinite(value) else None for name, value in found.items()}

    def _values(self, content: bytes) -> list[np.ndarray]:
        """Each output's numbers, float32 (chunks, numbers of a chunk)."""
        if len(content) != self.chunks * self.chunk_bytes:
            raise ValueError(f"Expected {self.chunks} x {self.chunk_bytes} bytes of outputs. Received: {len(content)}.")
        sizes = [int(np.prod(layer.shape)) * np.dtype(layer.dtype).itemsize for layer in self.outputs]
        raw = np.frombuffer(content, np.uint8).reshape(self.chunks, self.chunk_bytes)
        values = []
        for layer, cut in zip(self.outputs, np.split(raw, np.cumsum(sizes)[:-1], axis=1), strict=True):
            numbers = np.ascontiguousarray(cut).view(layer.dtype).astype(np.float32)
            values.append((numbers - layer.zero) * np.float32(layer.scale) if layer.scale else numbers)
        return values


def make(path, inputs, *, xnnpack: bool = True, threads: int = 1, single: bool = False,
         stop=None) -> Reference:
    """Run the file here on `inputs` (arrays, samples first: one, a list, or a dict by name) as a phone will.

    Many samples go into one run only where every input's signature has a dynamic batch, and after the first samples
    came out of a batch as they come out alone; else each run gets as many as the file's shape says. `single` asks for
    one sample a run.

    Raises:
        ValueError: inputs that don't fit. RuntimeError: LiteRT refuses the file or dies on it.
    """
    arrays = host.named(inputs)
    job = dict(path=str(Path(path).resolve()), xnnpack=xnnpack, threads=threads, single=single)
    limit = 1800 + 10 * max((len(array) for array in arrays.values() if array.ndim), default=0)
    found, left = child.in_child("reference", job, arrays, timeout=limit, stop=stop)
    layers = {name: tuple(Layer(**(layer | {"shape": tuple(layer["shape"])})) for layer in found[name])
              for name in ("inputs", "outputs")}  # fmt: skip
    packs = tuple(left[f"pack{k}"].tobytes() for k in range(len(layers["inputs"])))
    cut = {name: found[name] for name in ("samples", "chunk", "dynamic", "how")}
    found = Reference(**cut, **layers, packs=packs, content=left["outputs"].tobytes())
    found.read(found.content)
    return found


def work(folder: str) -> None:
    """The child's part of `make`."""
    child.serve(folder, _run)


def _run(job: dict, arrays: dict[str, np.ndarray]) -> dict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if job["xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

    def interpreter():
        return Interpreter(job["path"], num_threads=job["threads"], experimental_op_resolver_type=kernels)

    net = interpreter()
    details = net.get_input_details()
    samples = _samples(arrays)
    if any(not len(d["shape"]) for d in details):
        raise child.WrongInput("An input of the file is a single number, so it takes no batch of samples.")
    fixed = [int(d["shape"][0]) for d in details if d["shape_signature"][0] != -1]
    if fixed:
        chunk, how = fixed[0], "one sample a process" if fixed[0] == 1 else f"{fixed[0]} samples a process"
        how += ": the file's batch is fixed"
        feeds = _fixed_feeds(details, arrays, chunk)
    else:
        feeds = host.feeds_for(details, arrays)
        chunk, how = (1, "one sample a process") if job["single"] else _batch(interpreter, feeds, samples)
    feeds = [_filled(feed, chunk) for feed in feeds]
    outputs, layers = [], []
    for start in range(0, samples, chunk):
        arrays_out, layers = _invoke(net, [feed[start : start + chunk] for feed in feeds])
        outputs += [array.tobytes() for array in arrays_out]
    if any(layer["shape"][:1] != [chunk] for layer in layers[:1]):
        raise child.WrongInput(f"The output's shape {layers[0]['shape']} has no row for each of {chunk} samples.")
    left = {f"pack{k}": np.frombuffer(feed.tobytes(), np.uint8) for k, feed in enumerate(feeds)}
    np.savez("outputs.npz", **left, outputs=np.frombuffer(b"".join(outputs), np.uint8))
    inputs = [_layer(d, (chunk, *feed.shape[1:])) for d, feed in zip(details, feeds, strict=True)]
    return {"samples": samples, "chunk": chunk, "dynamic": not fixed, "how": how, "inputs": inputs, "outputs": layers}


def _samples(arrays) -> int:
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise child.WrongInput(f"Expected as many samples in each array, one or more. Received: {sorted(counts)}.")
    return counts.pop()


def _fixed_feeds(details, arrays, chunk: int):
    """The inputs of a file with a fixed batch, checked against a shape that takes any number of samples."""
    free = [d | {"shape_signature": np.array([-1, *d["shape_signature"][1:]])} for d in details]
    if any(int(d["shape"][0]) != chunk for d in details):
        raise child.WrongInput(f"The inputs' fixed batches differ: {[d['shape'].tolist() for d in details]}.")
    return host.feeds_for(free, arrays)


def _batch(interpreter, feeds, samples: int) -> tuple[int, str]:
    """How many samples go into one run of a file with a dynamic batch."""
    chunk = max(1, min(samples, MAX_BATCH, MAX_BATCH_BYTES // max(1, sum(feed[:1].nbytes for feed in feeds))))
    few = min(chunk, CHECKED)
    try:
        together = _invoke(interpreter(), [feed[:few] for feed in feeds])[0]
    except (RuntimeError, ValueError):
        return 1, "one sample a process: the file's inputs take a batch, but its layers don't"
    net = interpreter()
    alone = [_invoke(net, [feed[k : k + 1] for feed in feeds])[0] for k in range(few)]
    for index, batch in enumerate(together):
        rows = np.concatenate([outputs[index] for outputs in alone])
        if rows.shape != batch.shape or not np.allclose(rows, batch, rtol=1e-4, atol=1e-5):
            return 1, "one sample a process: a batch gives other outputs than its samples alone"
    return chunk, f"{chunk} samples a process, checked against single ones here"


def _invoke(net, feeds) -> tuple[list[np.ndarray], list[dict]]:
    details = net.get_input_details()
    for detail, feed in zip(details, feeds, strict=True):
        if tuple(detail["shape"]) != feed.shape:
            net.resize_tensor_input(detail["index"], feed.shape)
    net.allocate_tensors()
    for detail, feed in zip(details, feeds, strict=True):
        net.set_tensor(detail["index"], feed)
    net.invoke()
    found = net.get_output_details()
    arrays = [net.get_tensor(detail["index"]) for detail in found]
    return arrays, [_layer(detail, array.shape) for detail, array in zip(found, arrays, strict=True)]


def _layer(detail, shape) -> dict:
    scale, zero = detail["quantization"]
    return {"name": detail["name"], "shape": [int(n) for n in shape], "dtype": np.dtype(detail["dtype"]).name,
            "scale": float(scale), "zero": int(zero)}  # fmt: skip


def _filled(feed, chunk: int):
    missing = -len(feed) % chunk
    return np.concatenate([feed, np.repeat(feed[-1:], missing, axis=0)]) if missing else feed
