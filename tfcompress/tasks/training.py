"""`fit`: train any task by a `Recipe`; the same seed gives the same weights."""

import math
from pathlib import Path

import keras
import numpy as np

from tfcompress.distribute import Backup
from tfcompress.training import augment, mixed, optimizer


def fit(model, task, data, recipe=None, *, seed=0, callbacks=(), initial_epoch=0, backup=None,
        verbose=0):
    """Compile `model` for `task` and train it on `data.x_train`; returns the Keras History, with `val_loss`.

    Works for compressed and quantization-aware models (give `callbacks=[CompressionCallback(...)]`) and for a
    `Distiller`, such as `task.teach` gives. The order of examples, the augmentation and dropout come from `seed` and
    the epoch's number alone, so that a training that goes on sees what it would have seen: with
    `keras.callbacks.BackupAndRestore(folder)` among the callbacks, or with `initial_epoch` and a loaded model that is
    compiled (its optimizer is kept).

    Args:
        model: Keras model with the task's outputs.
        task: a `Task`. data: a `TaskData`.
        recipe: a `Recipe`; default: the task's own. Its `shift` and `balance` need one target an example: they are
            refused where y has positions. `mixup` mixes x alone: it is for a `Distiller` of alpha 1, which looks at no
            y. `label_smoothing` is for `tfcompress.training.fit`.
        backup: path of an `.npz` file that is written after every epoch; a fit that finds it goes on there, and ends
            as one that was never stopped (`distribute.Backup`). It is removed when all epochs are done.

    Raises:
        ValueError: y that are not of the task, a recipe that is not for it.
    """
    recipe = recipe or task.recipe
    task.check(data)
    _check(recipe, data, model)
    keras.utils.set_random_seed(seed)
    for i, variable in enumerate(model.non_trainable_variables):
        if variable.name == "seed_generator_state" and not initial_epoch:   # dropout's, drawn when the layer was made
            variable.assign([seed, i])
    stream = Batches(data.x_train, task.targets(model, data.y_train), data.y_train, recipe, seed)
    going_on = initial_epoch > 0 and getattr(model, "optimizer", None) is not None
    model.compile(
        optimizer=model.optimizer if going_on else optimizer(recipe, len(stream) * recipe.epochs),
        loss=task.loss(model),
        jit_compile=False,
    )
    keeping = [Backup(backup)] if backup else []
    initial_epoch = keeping[0].restore(model) if keeping else initial_epoch
    history = model.fit(
        stream,
        epochs=recipe.epochs,
        initial_epoch=initial_epoch,
        validation_data=(data.x_val, task.targets(model, data.y_val)),
        validation_batch_size=256,
        callbacks=[_Epoch(stream), *callbacks, *keeping],
        shuffle=False,
        verbose=verbose,
    )
    if backup:
        Path(backup).unlink(missing_ok=True)
    return history


class Batches(keras.utils.PyDataset):
    """Batches (x, y) of one epoch, each example once (or `recipe.samples` draws), in an order of (seed, epoch)."""

    def __init__(self, x, targets, y, recipe, seed):
        super().__init__()
        self.x, self.targets, self.y, self.recipe, self.seed = x, targets, y, recipe, seed
        self.epoch, self.order, self.drawn = 0, None, None

    def __len__(self):
        return math.ceil((self.recipe.samples or len(self.x)) / self.recipe.batch_size)

    def __getitem__(self, index):
        if self.drawn != self.epoch:
            self.order, self.drawn = self._draw(), self.epoch
        size = self.recipe.batch_size
        chosen = self.order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        x = augment(self.x[chosen], self.recipe, rng)
        if self.recipe.mixup:
            x, _ = mixed(x, x, self.recipe.mixup, rng)
        return x, keras.tree.map_structure(lambda part: part[chosen], self.targets)

    def _draw(self):
        count, rng = self.recipe.samples or len(self.x), np.random.default_rng((self.seed, self.epoch))
        if self.recipe.balance:
            weight = np.maximum(np.bincount(self.y), 1.0)[self.y] ** -self.recipe.balance
            return rng.choice(len(self.y), count, p=weight / weight.sum())
        return np.concatenate([rng.permutation(len(self.x)) for _ in range(math.ceil(count / len(self.x)))])[:count]


class _Epoch(keras.callbacks.Callback):
    """Tells the stream which epoch it is: a restored training doesn't begin with the first."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream

    def on_epoch_begin(self, epoch, logs=None):
        self.stream.epoch = epoch


def _check(recipe, data, model):
    one_each = data.y_train.ndim == 1
    refused = ["label_smoothing"] if recipe.label_smoothing else []
    refused += ["mixup"] if recipe.mixup and getattr(model, "alpha", None) != 1 else []
    refused += [name for name in ("shift",) if getattr(recipe, name) and not one_each]
    refused += ["balance"] if recipe.balance and not (one_each and data.y_train.dtype.kind in "iu") else []
    if refused:
        raise ValueError(f"The recipe has {', '.join(refused)}, which tasks.fit can't do for y {data.y_train.shape}. "
                         f"Set them to 0: dataclasses.replace(recipe, {refused[0]}=0).")
