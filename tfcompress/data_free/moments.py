"""What goes into each kernel of a float ``.tflite`` file when it runs: ranges of tensors, moments of inputs."""

from dataclasses import dataclass, replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.conversion.exact import may_change
from tfcompress.flatbuffer import read
from tfcompress.measure import feed, fixed_batch, load
from tfcompress.weights import weights

POSITIONS = 2048  # patches a convolution's moments are taken from, over all inputs
LARGEST = 1024  # inputs whose moments are kept whole; of more, those within blocks of at most so many
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass
class Kernel:
    """A float constant that operations multiply with.

    Attributes:
        tensor: the ``flatbuffer.Tensor``; op: the first operation that reads it.
        users: indices of the operations of the main graph whose inputs are watched; none inside a loop, for a
            transposed or a grouped convolution, and for what other operations read.
        second: (groups, inputs, inputs), mean (groups, inputs): moments of what it was multiplied with.
        samples: how many inputs these are means over; 0 where nothing is known.
    """

    tensor: object
    op: str
    users: list
    second: np.ndarray | None = None
    mean: np.ndarray | None = None
    samples: int = 0


def columns(kernel, op):
    """The kernel as (groups, inputs, columns), each group with inputs of its own.

    A depthwise kernel has a group a channel; one of more than ``LARGEST`` inputs has blocks of them, the last filled up
    with zeros.

    >>> columns(np.zeros((8, 3, 3, 4)), "CONV_2D").shape, columns(np.zeros((1, 3, 3, 4)), "DEPTHWISE_CONV_2D").shape
    ((1, 36, 8), (4, 9, 1))
    >>> columns(np.zeros((8, 1500)), "FULLY_CONNECTED").shape
    (2, 750, 8)
    """
    if op == "DEPTHWISE_CONV_2D":
        return kernel.reshape(-1, kernel.shape[-1]).T[:, :, None]
    return _blocks(kernel.reshape(len(kernel), -1)).transpose(1, 2, 0)


def back(values, op, shape):
    """The inverse of ``columns``."""
    if op == "DEPTHWISE_CONV_2D":
        return values[:, :, 0].T.reshape(shape)
    rows = values.transpose(2, 0, 1).reshape(shape[0], -1)
    return rows[:, : int(np.prod(shape[1:]))].reshape(shape)


def _blocks(rows):
    """(rows, inputs) as (rows, blocks, inputs of a block)."""
    blocks = -(-rows.shape[1] // LARGEST)
    size = -(-rows.shape[1] // blocks)
    return np.pad(rows, ((0, 0), (0, blocks * size - rows.shape[1]))).reshape(len(rows), blocks, size)


def observe(content, inputs):
    """Run a float file and watch.

    Args:
        content: bytes of the file.
        inputs: as ``measure.run`` takes them.

    Returns:
        ``(kernels, ranges, outputs)``: a list of ``Kernel``; ``{tensor: (smallest, largest)}`` of each channel (last
        axis) of every float tensor of the main graph that is no constant; the outputs as ``measure.run`` gives them.
    """
    file = read(content)
    graph = file.graphs[0]
    runner = load(file.content, threads=2, xnnpack=False, keep_all=True)
    kernels, ranges, outputs = _kernels(file), {}, []
    watched = [t for t in graph.tensors if t.dtype == "float32" and t.data is None and t.size]
    rounds = list(_counted(inputs, fixed_batch(runner)))
    for count in feed(runner, inputs, file.content, rounds[0]):
        values = _values(runner, watched)
        for tensor in watched:
            if tensor.index in values and values[tensor.index].size:
                found = values[tensor.index]
                found = found.reshape(-1, found.shape[-1] if found.ndim > 1 else 1)
                low, high = ranges.get(tensor.index, (np.inf, -np.inf))
                ranges[tensor.index] = np.minimum(low, found.min(axis=0)), np.maximum(high, found.max(axis=0))
        for kernel in kernels:
            for user in kernel.users:
                _add(kernel, graph.ops[user], values, len(rounds))
        outputs.append([np.array(runner.get_tensor(index)[:count]) for index in graph.outputs])
    for kernel in kernels:
        if kernel.samples:
            kernel.second, kernel.mean = kernel.second / kernel.samples, kernel.mean / kernel.samples
    return kernels, ranges, [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def _counted(inputs, fixed):
    """How many inputs go in at each run: as many as the file takes, else four."""
    arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
    total, step = len(next(iter(arrays))), fixed or 4
    return [step] * -(-total // step)


def _values(runner, watched):
    found = {}
    for tensor in watched:
        try:
            found[tensor.index] = runner.get_tensor(tensor.index)
        except ValueError:  # a tensor that no operation of this run has filled
            continue
    return found


def _kernels(file):
    """All weights of the file that may be changed, whether their inputs can be watched or not."""
    graph, found = file.graphs[0], []
    for weight in weights(file):
        tensor = weight.tensor
        if tensor.dtype != "float32" or tensor.sparse or not may_change(file, tensor, ()):
            continue
        same = {other.index for other in graph.tensors if other.buffer == tensor.buffer}
        readers = [at for at, op in enumerate(graph.ops) if same & set(op.inputs)]
        elsewhere = any(other.buffer == tensor.buffer for part in file.graphs[1:] for other in part.tensors)
        watched = all(_watched(graph, graph.ops[at], same) for at in readers) and not elsewhere
        alike = len({graph.ops[at].name for at in readers}) == 1
        found.append(Kernel(tensor, weight.op, readers if watched and alike else []))
    return found


def _watched(graph, op, same):
    """Whether it is known what an operation multiplies its kernel with: all input channels, or one alone."""
    if op.name not in KERNELS or op.inputs[1] not in same or op.inputs[0] in same:
        return False
    channels = graph.tensors[op.inputs[0]].shape[-1]
    return op.name == "FULLY_CONNECTED" or graph.tensors[op.inputs[1]].shape[-1] == channels


def _add(kernel, op, values, rounds):
    if op.inputs[0] not in values:
        return
    patches = _patches(values[op.inputs[0]], op, kernel.tensor.shape, POSITIONS // rounds)
    if op.name == "DEPTHWISE_CONV_2D":
        patches = patches.transpose(2, 0, 1)  # channels, positions, window
    else:
        patches = _blocks(patches.reshape(len(patches), -1)).transpose(1, 0, 2)  # blocks, positions, inputs
    second, mean = patches.transpose(0, 2, 1) @ patches, patches.sum(axis=1)
    kernel.second = second if kernel.second is None else kernel.second + second
    kernel.mean = mean if kernel.mean is None else kernel.mean + mean
    kernel.samples += patches.shape[1]


def _patches(values, op, shape, most):
    """(positions, window, channels): what the kernel is multiplied with at some of its positions, drawn evenly."""
    random = np.random.default_rng(0)
    if op.name == "FULLY_CONNECTED":
        rows = values.reshape(-1, 1, shape[-1])
        return rows if len(rows) <= most else rows[random.choice(len(rows), most, replace=False)]
    options, (height, width) = op.options, shape[1:3]
    steps = (options.strideH, options.strideW)
    dilation = (options.dilationHFactor, options.dilationWFactor)
    reach = [(size - 1) * gap + 1 for size, gap in zip((height, width), dilation, strict=True)]
    sides, sizes = _sides(values.shape[1:3], steps, reach, options.padding == schema.Padding.SAME)
    total = len(values) * sizes[0] * sizes[1]
    if not total:
        return np.zeros((0, height * width, values.shape[-1]), "float32")
    chosen = np.arange(total) if total <= most else np.sort(random.choice(total, most, replace=False))
    sample, row, column = np.unravel_index(chosen, (len(values), *sizes))
    row, column = row * steps[0] - sides[0], column * steps[1] - sides[1]
    parts = [_pixels(values, sample, row + y * dilation[0], column + x * dilation[1])
             for y in range(height) for x in range(width)]
    return np.stack(parts, axis=1)


def _sides(shape, steps, reach, same):
    """``(rows above and columns before that are zeros, positions along each axis)``."""
    sides, sizes = [], []
    for length, step, far in zip(shape, steps, reach, strict=True):
        size = -(-length // step) if same else max(0, (length - far) // step + 1)
        sides.append(max(0, (size - 1) * step + far - length) // 2 if same else 0)
        sizes.append(size)
    return sides, tuple(sizes)


def _pixels(values, sample, row, column):
    """Pixels, zeros where there are none."""
    inside = (row >= 0) & (row < values.shape[1]) & (column >= 0) & (column < values.shape[2])
    found = values[sample, np.clip(row, 0, values.shape[1] - 1), np.clip(column, 0, values.shape[2] - 1)]
    found[~inside] = 0
    return found


def without_features(kernels, graph):
    """The kernels, of dense layers on the inputs themselves without moments.

    Noise stands for images and sounds, as their neighbours are alike; nothing stands for features. Told to round for
    white ones, such a layer lost more on real ones than with the nearest codes.
    """
    reached = set(graph.inputs)
    for op in graph.ops:
        if op.name in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE") and op.inputs[0] in reached:
            reached |= set(op.outputs)
    return [replace(kernel, second=None, mean=None, samples=0)
            if kernel.op == "FULLY_CONNECTED" and any(graph.ops[user].inputs[0] in reached for user in kernel.users)
            else kernel for kernel in kernels]
