"""The one callback: between steps it hands every method its weights, and writes back what it returns."""

import math
import warnings

import keras
import numpy as np

from tfcompress.model import compressed_tensors
from tfcompress.wrapper import read


class CompressionCallback(keras.callbacks.Callback):
    """Runs ``Method.update`` every ``every`` optimizer steps, and at each method's milestones.

    The step is ``optimizer.iterations``, so a resumed run goes on where it was, and ``steps_per_execution > 1`` fires
    once for the steps it made. It is read when an update can be due, not after every batch: a read takes 1 % of a small
    model's step. Tensors that share one method value are handed over together: "global" pruning is global over them.
    ``fit`` logs gain ``sparsity`` (share of zeros over the compressed tensors) and, where a method quantizes,
    ``levels`` (the most distinct values in one output channel).

    Args:
        every: optimizer steps between updates, >= 1.
        data: what criteria that look at data get, usually ``(x, y)``.
    """

    def __init__(self, every=1, data=None):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` is a number of optimizer steps, an int >= 1. Received: every={every!r}.")
        self.every, self.data = every, data

    def on_train_begin(self, logs=None):
        self.tensors = compressed_tensors(self.model)
        if not self.tensors:
            raise ValueError(f"Model '{self.model.name}' has no compressed layer. Call tfcompress.compress(model, ...) "
                             "and fit what it returns.")
        self.milestones = {m for _, layer, key in self.tensors for m in layer.methods[key].milestones}
        self.step, self.batches, self.pace, self.wait = self._read_step(), 0, self.model.steps_per_execution, 1
        if self.step == 0:
            self.update(0)

    def _read_step(self):
        iterations = self.model.optimizer.iterations     # a tensor where gradients are accumulated
        return int(read(iterations) if isinstance(iterations, keras.Variable) else iterations)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches < self.wait:                     # no update can be due yet
            return
        before, self.step = self.step, self._read_step()
        due = self.step // self.every > before // self.every
        if due or any(before < milestone <= self.step for milestone in self.milestones):
            self.update(self.step)
        self.pace = max(self.pace, math.ceil((self.step - before) / self.batches))
        later = [milestone for milestone in self.milestones if milestone > self.step]
        following = min([(self.step // self.every + 1) * self.every, *later])
        self.batches, self.wait = 0, math.ceil((following - self.step) / self.pace)

    def update(self, step):
        """Run every method's update now, as of optimizer step ``step``."""
        groups = {}                                      # by value: after load_model each layer has a Method of its own
        for path, layer, key in self.tensors:
            groups.setdefault(layer.methods[key], []).append((path, layer, key))
        for method, members in groups.items():
            weights = {path: layer.latent(key) for path, layer, key in members}
            states = {path: layer.values(key) for path, layer, key in members}
            new = method.update(weights, states, step, self.model, self.data)
            for path, layer, key in members:
                changed = {name: value for name, value in new[path].items() if value is not states[path].get(name)}
                layer.write(key, changed)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(compression_logs(self.tensors))

    def on_train_end(self, logs=None):
        self.step = self._read_step()
        late = max(self.milestones, default=0)
        if self.step < late:
            warnings.warn(f"Training stopped at optimizer step {self.step}, before the schedule's end at {late}: the "
                          "target is not reached. Train longer, or end the schedule earlier.", stacklevel=2)


def compression_logs(tensors):
    """``{"sparsity": share of zeros, "levels": most distinct values in a channel}`` of compressed tensors."""
    zeros = size = levels = 0
    for _, layer, key in tensors:
        w = layer.baked(key, canonical=True)
        zeros, size = zeros + int(np.sum(w == 0)), size + w.size
        if layer.methods[key].bits is not None:
            columns = np.sort(w.reshape(-1, w.shape[-1]), axis=0)
            levels = max(levels, int(1 + np.sum(np.diff(columns, axis=0) != 0, axis=0).max()))
    return {"sparsity": zeros / size, **({"levels": levels} if levels else {})}
