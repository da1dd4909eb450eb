"""What data does to the kernels of a graph: mean and covariance of the rows that each is multiplied with."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfcompress.copies import from_own_config
from tfcompress.graph import batches, call
from tfcompress.lowrank.items import CONVOLUTIONS

L = keras.layers
_VALUES = 2**26  # of patches at a time
_WAIT = 4096
_ROWS = 20_000  # of a layer, at least four times as many as columns


@dataclass(frozen=True)
class Moments:
    """``mean`` (m,) and centred ``covariance`` (m, m) of the rows ``x`` of ``x @ kernel``, the kernel as a matrix."""

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def second(self):
        """The mean of ``x' x``."""
        return self.covariance + np.outer(self.mean, self.mean)


def checked(model, data):
    """None or ``(x, y)``, with the last axis of 1 that Keras adds; ValueError for samples the model can't take."""
    if data is None:
        return None
    if isinstance(data, tuple) and len(data) != 2:
        raise ValueError(f"`data` is x, or (x, y); several inputs are a list. Received: a tuple of {len(data)}.")
    x, y = data if isinstance(data, tuple) else (data, None)
    arrays = [np.asarray(a) for a in keras.tree.flatten(x)]
    labels = [a for a in map(np.asarray, keras.tree.flatten(y)) if a.ndim]
    counts = {len(a) if a.ndim else 0 for a in (*arrays, *labels)}
    if len(counts) != 1 or 0 in counts or len(arrays) != len(model.inputs):
        raise ValueError(f"`data` is x, or (x, y) with as many samples as labels, for {len(model.inputs)} input(s). "
                         f"Received: {len(arrays)} array(s) x, counts of samples {sorted(counts)}.")
    if not all(a.dtype.kind in "biu" or a.dtype.kind == "f" and np.isfinite(a).all() for a in arrays):
        raise ValueError("x holds values that are not finite numbers: nothing can be told from them. "
                         f"Received: {[str(a.dtype) for a in arrays]}.")
    if len(arrays) > 1 or isinstance(x, dict):
        return x, y
    wanted = tuple(model.inputs[0].shape[1:])
    x = arrays[0][..., None] if (*arrays[0].shape[1:], 1) == wanted else arrays[0]
    if x.ndim != len(wanted) + 1 or any(size not in (None, n) for size, n in zip(wanted, x.shape[1:], strict=True)):
        raise ValueError(f"Model '{model.name}' takes samples of shape {wanted}. Received: x of shape {x.shape}, the "
                         "samples first.")
    return x, y


def moments(graph, items, x, batch=16, seed=0):
    """``{item: Moments}`` over the samples ``x``; random rows where a layer sees very many.

    What is not known is left out: the states inside a Bidirectional, and of a single step.

    Raises:
        ValueError: a stateful layer, whose samples would follow each other.
    """
    stateful = [node.path for node in graph.nodes if getattr(node.layer, "stateful", False)]
    if stateful:
        raise ValueError(f"With data, states must start anew with each sample. Received: the stateful layers {stateful}"
                         ". Leave data out, or build the model without stateful=True.")
    rng, sums = np.random.default_rng(seed), {}
    count = len(keras.tree.flatten(x)[0])
    for part in batches(x, batch):
        tensors = graph.feed(part)
        for node in graph.steps(tensors):
            for item in (item for item in items if item.layer is node.layer):
                share = batch / count / len(graph.users(node.layer))
                for rows in (rows for rows in _rows(item, tensors[node.inputs[0]]) if len(rows)):
                    most = max(1, int(share * max(_ROWS, 4 * rows.shape[-1])))
                    chosen = rng.choice(len(rows), most, replace=False) if len(rows) > most else slice(None)
                    sums.setdefault(item, _Sum()).add(rows[chosen])
            call(node, tensors)
    return {item: total.moments() for item, total in sums.items()}


class _Sum:
    """Sums over rows and their products; rows wait until they are worth a matrix product."""

    def __init__(self):
        self.count, self.first, self.second, self.waiting = 0, 0.0, 0.0, []

    def add(self, rows):
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) > _WAIT:
            self._flush()

    def _flush(self):
        rows = np.concatenate(self.waiting)
        self.count, self.waiting = self.count + len(rows), []
        self.first = self.first + rows.sum(axis=0, dtype="float64")
        self.second = self.second + (rows.T @ rows).astype("float64")

    def moments(self):
        if self.waiting:
            self._flush()
        mean = self.first / self.count
        return Moments(mean, self.second / self.count - np.outer(mean, mean))


def _rows(item, x):
    """The rows that the item's kernel is multiplied with for the layer input ``x``, in parts."""
    layer = item.layer
    if type(layer) in CONVOLUTIONS:
        positions = max(1, item.inputs * item.kernel[..., 0].size)
        step = max(1, _VALUES // positions)
        for start in range(0, len(x), step):
            patches = _patches(x[start:start + step], layer)
            yield np.reshape(patches, (-1, patches.shape[-1]))
    elif item.key.endswith("recurrent_kernel"):
        if isinstance(layer, (L.LSTM, L.GRU)):
            yield np.reshape(_states(layer, x), (-1, layer.units))
    else:
        yield np.reshape(keras.ops.convert_to_numpy(x), (-1, x.shape[-1]))


def _patches(x, layer):
    """Patches (N, H', W', kh * kw * in) in the order of the kernel's rows; a 1-D convolution has height 1."""
    size, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    x = tf.convert_to_tensor(x)
    if len(size) == 1:
        if padding == "CAUSAL":
            x, padding = tf.pad(x, [[0, 0], [(size[0] - 1) * rates[0], 0], [0, 0]]), "VALID"
        x, size, strides, rates = x[:, None], (1, *size), (1, *strides), (1, *rates)
    return tf.image.extract_patches(x, (1, *size, 1), (1, *strides, 1), (1, *rates, 1), padding).numpy()


def _states(layer, x):
    """The states before each step but the first."""
    every = from_own_config(layer, {**layer.get_config(), "return_sequences": True, "return_state": False,
                                    "stateful": False})
    every.build(x.shape)
    every.set_weights([w.numpy() for w in layer.weights])
    return keras.ops.convert_to_numpy(every(x, training=False))[:, :-1]
