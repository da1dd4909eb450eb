"""From a ``Job`` to all that it leaves open: recipe, stages, seed. The mapping is what ``resolved.yaml`` holds."""

import dataclasses
import importlib.metadata
import math
from pathlib import Path

import keras
import yaml

from android_bench.store import write_file
from tfcompress import kept, tasks, zoo
from tfcompress.job import goal
from tfcompress.job.spec import Job
from tfcompress.recipes import RECIPES, Recipe
from tfcompress.tasks.losses import one_sigmoid
from tfcompress.tasks.task import PARTS

PACKAGES = ("tfcompress", "tensorflow", "keras", "litert-quantizer", "ai-edge-litert", "numpy")
SETTINGS = {                                             # of each stage, in the order in which they are tried
    "factorize": ("keep", "epochs", "learning_rate"),
    "prune": ("sparsity", "by", "epochs", "learning_rate"),
    "shrink": (),
    "distil": ("epochs", "learning_rate"),
    "quantize": ("bits", "epochs", "learning_rate"),
}
FOUND = ("kept", "how")                                  # what a run adds: a rerun does the same without asking
ALLOWED = {"factorize": 0.25, "prune": 0.75, "shrink": 0.75, "distil": 0.75, "quantize": 1.0}    # of the drop, up to it
COLUMNS = ("classification", "multi_label", "sequence_labelling", "segmentation")     # outputs have one a class


def load(job):
    """``TaskData`` of the job."""
    return tasks.load(job.task, job.data)


def net(job, data, seed):
    """The net to begin with, and whether it is trained."""
    task = tasks.find(job.task)
    if job.model is None:
        return task.model(data, seed), False
    trained = job.model.endswith(".keras")
    if trained and not Path(job.model).is_file():
        raise FileNotFoundError(f"No model at {job.model!r}. Expected a .keras file.")
    try:
        model = keras.models.load_model(job.model, compile=False) if trained else \
            zoo.build(job.model, data.input_shape, data.classes, seed=seed)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"Can't make the model {job.model}: {' '.join(str(error).split())[:300]}") from error
    _check_net(model, job, data)
    return model, trained


def _check_net(model, job, data):
    """ValueError for a model with other inputs or outputs than the task's."""
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape[1:]) != tuple(data.input_shape):
        found = [tuple(one.shape[1:]) for one in model.inputs]
        raise ValueError(f"The model {job.model} does not take the examples of {data.name!r}, "
                         f"{tuple(data.input_shape)}. Received: inputs {found}.")
    wanted = {name: data.classes for name in COLUMNS} | {"ocr": data.classes + 1}
    found = [tuple(one.shape[1:]) for one in model.outputs]
    if job.task == "classification" and data.classes == 2 and len(found) == 1 and one_sigmoid(model):
        return
    if job.task in wanted and (len(found) != 1 or found[0][-1:] != (wanted[job.task],)):
        also = ", or one sigmoid" if job.task == "classification" and data.classes == 2 else ""
        raise ValueError(f"{job.task} of {data.name!r} takes one output with {wanted[job.task]} columns{also}. "
                         f"Received from the model {job.model}: {found}.")


def doubt(model, data):
    """Why scores of a job's ``model`` may say too much; "" where nothing is known."""
    if not data.drawn or not (model or "").endswith(".keras"):
        return ""
    lacking = ", ".join(f"{name}, y{name[1:]}" for name in data.drawn)
    parts = " and ".join({"x_val": "validation", "x_test": "test"}[name] for name in data.drawn)
    return (f"{' and '.join(data.drawn)} were drawn from x_train. If {Path(model).name} was trained on these "
            f"examples, {parts} scores look better than they are, the control's and those of all that is made of it. "
            f"Give the .npz {lacking}.")


def resolve(job, data, stages=None):
    """The mapping of ``resolved.yaml``: what the job leaves open. ``stages``: of the same job, as once resolved."""
    task = tasks.find(job.task)
    model, trained = net(job, data, 0)
    recipe = _recipe(task, model.name, data)
    own = RECIPES.get(f"{model.name}_tune", recipe) if task.name == "classification" else recipe
    tune = dataclasses.replace(own, warmup=0.05 * (recipe.schedule == "cosine"),
                               mixup=1.0 if task.teach and not task.relative else 0.0)
    if not stages:
        gone = None if isinstance(job.target, str) else goal.sparsity(task.export(model), data.x_train, job.target)
        stages = _stages(job.target, tune, gone)
    return {
        "job": dataclasses.asdict(job),
        "seed": 0,
        "drop": 0.05 if task.relative else 0.01,
        "train": None if trained else dataclasses.asdict(recipe),
        "tune": dataclasses.asdict(tune),
        "stages": stages,
    } | given(data, model, trained)


def given(data, model, trained):
    """What a rerun has to find as it was: data, a trained model, versions."""
    return {
        "data_sha256": digest(data),
        "model_sha256": kept.fingerprint(model) if trained else None,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def digest(data):
    """SHA-256 of all arrays."""
    return kept.digest([getattr(data, f"{axis}_{part}") for part in PARTS for axis in "xy"])


def check(plan):
    """The ``Job`` of a mapping that was read; ValueError for what is not as ``resolve`` writes it."""
    wanted = ("job", "seed", "drop", "train", "tune", "stages", "data_sha256", "model_sha256", "versions")
    wrong = sorted(map(str, set(plan) ^ set(wanted)))
    if wrong:
        raise ValueError(f"A resolved job has the fields {', '.join(wanted)}. Missing or unknown: {', '.join(wrong)}.")
    try:
        job = Job(**plan["job"])
        trained = bool(job.model) and job.model.endswith(".keras")
        for name in ("tune",) if trained else ("train", "tune"):
            Recipe(**plan[name])
    except TypeError as error:
        raise ValueError(f"`job`, `train` and `tune` of a resolved job are as it was written: {error}") from error
    if not isinstance(plan["versions"], dict) or not _is_whole(plan["seed"], 0):
        raise ValueError(f"`seed` is a whole number >= 0, `versions` a mapping. Received: seed: {plan['seed']!r}, "
                         f"versions: {plan['versions']!r}.")
    if not isinstance(plan["stages"], list):
        raise ValueError(f"`stages` is a list. Received: stages: {plan['stages']!r}.")
    if not isinstance(plan["drop"], int | float) or not 0 <= plan["drop"] < 1:
        raise ValueError(f"`drop` is what the metric may lose, 0 to 1. Received: drop: {plan['drop']!r}.")
    for stage in plan["stages"]:
        _check_stage(stage)
    order = [stage["stage"] for stage in plan["stages"]]
    if order != [name for name in SETTINGS if name in order]:
        raise ValueError(f"Stages come once each, in the order {', '.join(SETTINGS)}. Received: {', '.join(order)}.")
    return job


def write(plan, path):
    """Write the mapping, fields in their order, at once or not at all."""
    write_file(path, yaml.safe_dump(plan, sort_keys=False, width=110).encode())


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def sparsities(stage):
    """Those that are tried in turn, until one stays.

    >>> sparsities({"sparsity": 0.9}), sparsities({"sparsity": [0.9, 0.8]})
    ([0.9], [0.9, 0.8])
    """
    return stage["sparsity"] if isinstance(stage["sparsity"], list) else [stage["sparsity"]]


def _check_stage(stage):
    name = stage.get("stage") if isinstance(stage, dict) else stage
    if not isinstance(name, str) or name not in SETTINGS:
        raise ValueError(f"Unknown stage {name!r}. Known: {', '.join(SETTINGS)}.")
    wrong = sorted(set(stage) - {"stage", *FOUND} ^ set(SETTINGS[name]))
    if wrong:
        raise ValueError(f"The stage {name} has the settings {', '.join(SETTINGS[name]) or 'none'}. Missing or "
                         f"unknown: {', '.join(wrong)}.")
    limits = {"keep": (0, 1), "sparsity": (0, 1), "learning_rate": (0, math.inf), "epochs": (0, math.inf)}
    for key in limits.keys() & stage.keys():
        low, high = limits[key]
        values = sparsities(stage) if key == "sparsity" else [stage[key]]
        if not values or not all(isinstance(value, int | float) and low < value < high for value in values):
            raise ValueError(f"{name}: {key} lies between {low} and {high}. Received: {key}: {stage[key]!r}.")
    if "epochs" in stage and not _is_whole(stage["epochs"], 1):
        raise ValueError(f"{name}: epochs is a whole number >= 1. Received: epochs: {stage['epochs']!r}.")
    hows = ("calibrated", "trained") if stage.get("bits", 8) == 8 else ("trained",)
    for key, known in (("by", ("weights", "filters")), ("bits", (8, 4, 2)), ("kept", (True, False)), ("how", hows)):
        if key in stage and stage[key] not in known:
            raise ValueError(f"{name}: {key} is one of {known}. Received: {key}: {stage[key]!r}.")


def _recipe(task, net_name, data):
    """The one that was chosen for this net or data, else the task's own, on small data with as many steps."""
    if task.name == "classification":
        for name in (net_name, data.name):
            if name in RECIPES:
                return dataclasses.replace(RECIPES[name], mixup=0.0)     # which tasks.fit doesn't do
    recipe = dataclasses.replace(task.recipe, shift=task.recipe.shift if data.name in task.datasets else 0)
    epochs = max(recipe.epochs, min(100, round(3000 * recipe.epochs / len(data.x_train))))
    return dataclasses.replace(recipe, epochs=epochs)


def _stages(target, tune, gone):
    """The settings that a target begins with; ``gone``: of numbers, the share of filters that must go."""
    long, short, rate = 2 * tune.epochs, max(2, math.ceil(tune.epochs / 2)), tune.learning_rate
    keep, sparsity, by = 0.7, [0.9, 0.8, 0.7], "weights"
    if target == "fast":
        sparsity, by = [0.5, 0.3], "filters"
    elif target != "small":
        keep, by = (0.7 if gone > 0.5 else None), "filters"
        sparsity = [round(share * gone, 3) for share in (1, 0.8, 0.6)] if gone else None
    found = [{"stage": "factorize", "keep": keep, "epochs": short, "learning_rate": rate / 2}] if keep else []
    if sparsity:
        found += [{"stage": "prune", "sparsity": sparsity, "by": by, "epochs": long, "learning_rate": rate},
                  {"stage": "shrink"}]
    if found:
        found.append({"stage": "distil", "epochs": short, "learning_rate": rate / 2})
    return [*found, {"stage": "quantize", "bits": 8, "epochs": short, "learning_rate": rate / 4}]
