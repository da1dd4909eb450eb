"""The stages: each takes a Keras model and gives one that should cost less, trained anew where that helps."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import keras

from tfcompress import tasks
from tfcompress.callback import CompressionCallback
from tfcompress.chain import Chain
from tfcompress.conversion.slim import slim
from tfcompress.convert import convert
from tfcompress.job.bar import epoch_bar
from tfcompress.lowrank.factorize import factorize
from tfcompress.model import compress, strip
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune import Prune
from tfcompress.pruning.shrink import shrink
from tfcompress.quantization.admm import ADMM
from tfcompress.quantization.aware import calibrate, quantize_aware
from tfcompress.recipes import Recipe
from tfcompress.schedules import Polynomial

CALIBRATION = 200                                        # training inputs
HOW = {8: ("calibrated", "trained"), 4: ("trained",), 2: ("trained",)}    # by bits
LEVELS = {4: (0, 1, 2, 4, 8), 2: (0, 1)}                 # of ADMM, by bits


class NothingToDo(ValueError):
    """Why a stage leaves this model as it is."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a stage trains on: the task and its data, the control as teacher, a recipe, a seed, a file for backups."""

    task: tasks.Task
    data: tasks.TaskData
    teacher: Callable
    tune: Recipe
    seed: int
    backup: Path

    def train(self, model, stage, method=None):
        """Fit ``model`` in place, by labels or, where the task has such a thing, by the control's outputs alone.

        method: what to ``compress`` it with; what comes back is the compressed model.
        """
        held = compress(model, method) if method else model
        recipe = dataclasses.replace(self.tune, epochs=stage["epochs"], learning_rate=stage["learning_rate"])
        learner = self.task.teach(held, self.teacher(), 1.0, 1.0) if self.task.teach else held
        callbacks = [CompressionCallback(max(1, self.steps(recipe) // 100))] if method else []
        with epoch_bar(stage["stage"]) as bar:
            tasks.fit(learner, self.task, self.data, recipe, seed=self.seed, callbacks=[*callbacks, bar],
                      backup=self.backup)
        return held

    def steps(self, recipe):
        return recipe.epochs * math.ceil((recipe.samples or len(self.data.x_train)) / recipe.batch_size)

    @property
    def sample(self):
        x = self.data.x_train                            # evenly: a user's may be sorted by class
        return x[:: max(1, len(x) // CALIBRATION)][:CALIBRATION]


def factorized(model, stage, work):
    """Kernels as products of smaller ones, in a share of the multiplications."""
    return work.train(factorize(model, stage["keep"], data=work.sample).model, stage)


def pruned(model, stage, work):
    """Weights, ranked over all layers, or whole filters go, gradually."""
    end = max(1, int(0.6 * work.steps(dataclasses.replace(work.tune, epochs=stage["epochs"]))))
    granularity = "global" if stage["by"] == "weights" else "group"
    method = Prune(Polynomial(stage["sparsity"], begin=0, end=end), granularity=granularity)
    return strip(work.train(model, stage, method))


def shrunk(model, stage, work):
    """Without what pruning has zeroed."""
    small = shrink(model)
    if small.count_params() == model.count_params():
        raise NothingToDo("No filter is zero.")
    return small


def taught(model, stage, work):
    """Trained on by the control's outputs; zeros stay."""
    if not work.task.teach:
        raise NothingToDo(f"Outputs of {work.task.name} can't be taught by a teacher's.")
    return strip(work.train(model, stage, KeepZeros()))


def quantized(model, stage, work, how):
    """The ``TFLiteModel`` of few bits, made ``how``: "calibrated" or "trained" (in training, with its rounding)."""
    if how == "calibrated":
        return convert(work.task.export(model), "int8", work.sample)
    export = work.task.export
    if stage["bits"] == 8:
        aware = quantize_aware(model, weights=KeepZeros())
        calibrate(aware, work.sample)
        return convert(export(work.train(aware, stage)), "int8")
    end = max(2, int(0.8 * work.steps(dataclasses.replace(work.tune, epochs=stage["epochs"]))))
    method = Chain((KeepZeros(), ADMM(LEVELS[stage["bits"]], begin=0, end=end)))
    return convert(slim(export(strip(work.train(model, stage, method)))), "exact")


def stage_seed(seed, name):
    """Each stage's own, whatever ran before it."""
    return seed + 1 + list(STAGES).index(name)


def fresh():
    """Names that Keras gives count from one again: a stage that was resumed gives the names it would have given."""
    keras.backend.clear_session()


STAGES = {"factorize": factorized, "prune": pruned, "shrink": shrunk, "distil": taught, "quantize": quantized}
