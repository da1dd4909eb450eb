"""The one callback: between steps it hands every method its weights, and writes back what it returns."""

import math
import warnings

import keras
import numpy as np

from tfcompress.layout import VECTOR_NAMES
from tfcompress.model import check_model, compressed_tensors, plain_twin, refresh
from tfcompress.wrapper import read


class CompressionCallback(keras.callbacks.Callback):
    """Runs ``Method.update`` every ``every`` optimizer steps, and at each method's milestones.

    The step is ``optimizer.iterations``, so a resumed run goes on where it was, and ``steps_per_execution > 1`` fires
    once for the steps it made. It is read when an update can be due: a read takes 1 % of a small model's step. (A model
    with a ``train_step`` of its own can make any number of steps a batch: there it is read after each.) Tensors that
    share one method value are handed over together: "global" pruning is global over them. Methods that look at the
    network (``needs_model``) get a plain twin of it, compiled with its loss, that holds the compressed weights as of
    now; of a ``Distiller`` that is the student's. ``fit`` logs gain ``sparsity`` (share of zeros over the compressed
    tensors) and, where a method quantizes, ``levels`` (the most distinct values in one output channel).

    Args:
        every: optimizer steps between updates, >= 1; 50 to 500 for criteria that look at data, which run the network.
        data: what criteria that look at data get: ``(x, y)``, a few hundred examples that are not used to judge.
    """

    def __init__(self, every=1, data=None):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` is a number of optimizer steps, an int >= 1. Received: every={every!r}.")
        self.every, self.data = every, data

    def on_train_begin(self, logs=None):
        student = getattr(self.model, "student", None)
        self.net = student if isinstance(student, keras.Model) else self.model
        self.tensors = compressed_tensors(self.net)
        if not self.tensors:
            raise ValueError(f"Model '{self.model.name}' has no compressed layer. Call tfcompress.compress(model, ...) "
                             "and fit what it returns.")
        for _, layer, _ in self.tensors:
            layer.visited = True
        self.twin = None
        if any(layer.methods[key].needs_model for _, layer, key in self.tensors):
            check_model(self.net)
            self.twin = plain_twin(self.net)
            weights = self.model.get_compile_config().get("loss_weights") if self.net is self.model else None
            self.twin.compile(loss=self.model.loss, loss_weights=weights)
        self.milestones = {m for _, layer, key in self.tensors for m in layer.methods[key].milestones}
        usual = type(self.model).train_step is keras.Model.train_step
        self.most = self.model.steps_per_execution if usual else math.inf    # optimizer steps between two calls
        self.step = self._read_step()
        if self.step == 0:
            self.update(0)
        self._look_ahead()

    def _look_ahead(self):
        later = [milestone for milestone in self.milestones if milestone > self.step]
        self.due = min([(self.step // self.every + 1) * self.every, *later])
        self.possible = self.step                        # no step beyond this one has been made

    def _catch_up(self):
        self.step = self._read_step()
        if self.step >= self.due:
            self.update(self.step)
        self._look_ahead()

    def _read_step(self):
        iterations = self.model.optimizer.iterations     # a tensor where gradients are accumulated
        return int(read(iterations) if isinstance(iterations, keras.Variable) else iterations)

    def on_train_batch_end(self, batch, logs=None):
        self.possible += self.most
        if self.possible >= self.due:
            self._catch_up()

    def update(self, step):
        """Run every method's update now, as of optimizer step ``step``."""
        for method, members in self._groups():
            states = {path: layer.values(key) for path, layer, key in members}
            if method.idle(states, step):
                continue
            weights = {path: layer.latent(key) for path, layer, key in members}
            if method.needs_model:
                refresh(self.net, self.twin)
            new = method.update(weights, states, step, self.twin if method.needs_model else self.model, self.data)
            for path, layer, key in members:
                changed = {name: value for name, value in new[path].items() if value is not states[path].get(name)}
                layer.write(key, changed)

    def _groups(self):
        """``[(method, its tensors)]``, by value: after load_model each layer has a Method of its own.

        Where there are several, biases, gammas and betas come last: they follow filters that another one may prune.
        """
        groups = {}
        several = len({layer.methods[key] for _, layer, key in self.tensors}) > 1
        for path, layer, key in self.tensors:
            method = layer.methods[key]
            last = several and method.vectors_last and key.split("/")[-1] in VECTOR_NAMES
            groups.setdefault((last, method), []).append((path, layer, key))
        return [(method, members) for (_, method), members in sorted(groups.items(), key=lambda group: group[0][0])]

    def on_epoch_end(self, epoch, logs=None):
        self._catch_up()
        if logs is not None:
            logs.update(compression_logs(self.tensors))

    def on_train_end(self, logs=None):
        self._catch_up()
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
