"""What table_one_click.py asks of each model: the models, and one function a way of making a file.

Way "float" comes first: it keeps the float file, its inputs and answers in a cache folder, and the others start there.
"""

import dataclasses
import hashlib
import math
import os
import tempfile
import time
from pathlib import Path

import coverage_columns
import numpy as np
import real_models
import real_models_loaders as loaders
import real_models_more

from android_bench.metrics import classify
from tfcompress import one_click
from tfcompress.conversion import pipeline, samples, source
from tfcompress.conversion.interpreter import Runner
from tfcompress.conversion.worker import worker
from tfcompress.convert import convert
from tfcompress.data_free import click
from tfcompress.flatbuffer import read
from tfcompress.gains import payoff
from tfcompress.inspect import inspect
from tfcompress.measure import run, snr_db

KEPT = loaders.CACHE.parent / "one_click"
FAMILY = "coverage "  # begins the names of keras.applications with random weights
CASES = real_models.CASES | real_models_more.cases()
MADE = ("small", "fast")
REAL = ("efficientnet-lite0", "efficientnet-lite1", "nsfwjs mobilenet_v2", "nsfwjs inception_v3",
        "mltk image_classification", "mltk visual_wake_words", "fer", "deepcut")  # classifiers, inputs of their kind


def figures(model, way):
    """The figures of a row; raises where something is in the way."""
    before = os.getloadavg()[0]
    found = WAYS.get(way, made)(model, way) if way not in MADE else clicked(model, way)
    return found | {"load": [round(before, 2), round(os.getloadavg()[0], 2)]}


def case_of(model):
    """The ``Case``; of a family of keras.applications the model that way "float" kept, else a new one."""
    if not model.startswith(FAMILY):
        return CASES[model]()
    import keras

    family, path = model.removeprefix(FAMILY), place(model, "model.keras")
    built = keras.models.load_model(path, compile=False) if path.exists() else coverage_columns.build(family)
    return loaders.Case(built, lambda x: built.predict(x, verbose=0), None, coverage_columns.shown(family), "blobs")


def place(model, name):
    folder = KEPT / model.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


# ---- the float file, and what is kept of it --------------------------------------------------------------------------
def as_float(model, _):
    """TFLiteConverter's file beside the model itself."""
    case = case_of(model)
    file = convert(case.source, "float32")
    said = answers(file.content, case.test)
    few = first(case.test, 4)
    theirs = case.predict(few)
    theirs = theirs if isinstance(theirs, dict) else {next(iter(said)): theirs}
    mine = [said[name][: len(np.asarray(array))] for name, array in theirs.items()]
    place(model, "float.tflite").write_bytes(file.content)
    np.savez(place(model, "answers.npz"), **said)
    for name, inputs in (("test", case.test), ("calibration", case.calibration)):
        if inputs is not None:
            np.savez(place(model, f"{name}.npz"), **(inputs if isinstance(inputs, dict) else {"": inputs}))
    if model.startswith(FAMILY):
        case.source.save(place(model, "model.keras"))
    graph = read(file.content).graphs
    constants = {t.buffer: t.size for part in graph for t in part.tensors
                 if t.data is not None and t.dtype in ("float32", "float16")}
    return {"bytes": file.size, "float_seconds": round(file.seconds["float"], 2), "macs": inspect(file.content).macs,
            "parameters": int(sum(constants.values())), "inputs": case.inputs, "classes": case.classes,
            "snr_db": round(snr_db(mine, list(theirs.values())), 1), "operations": sorted({op.name for part in graph
                                                                                           for op in part.ops})}


def answers(content, x):
    """``{output name: array}`` in the order of the model's outputs; two threads."""
    file, got = read(content), run(content, x, threads=2)
    named = {at: name for name, at in file.signatures[0].outputs.items()} if file.signatures else {}
    return {named.get(at, str(at)): value for at, value in zip(file.graphs[0].outputs, got, strict=True)}


def first(x, count):
    return {name: array[:count] for name, array in x.items()} if isinstance(x, dict) else x[:count]


def opened(model, name):
    """Arrays that way "float" kept: one, or a dict by name."""
    path = place(model, f"{name}.npz")
    if not place(model, "float.tflite").exists():
        raise FileNotFoundError("no float file: see way 'float'")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays.get("", arrays) if name != "answers" else arrays


def judged(model, content):
    """Bytes, and the answers to the test inputs beside the float file's."""
    x, wanted = opened(model, "test"), opened(model, "answers")
    got = answers(content, x)
    found = {"bytes": len(content), "snr_db": round(snr_db([got[name] for name in wanted], list(wanted.values())), 2)}
    found["relative_error"] = round(10 ** (-found["snr_db"] / 20), 5)
    signal, mine = next(iter(wanted.values())), got[next(iter(wanted))]
    if model.startswith(FAMILY):
        found["spread_db"] = coverage_columns.snr_db(mine, signal)
    if signal.ndim >= 2 and (signal.shape[-1] > 1 or signal.ndim == 2):
        pair = [classify(each.reshape(-1, each.shape[-1])) for each in (mine, signal)]
        equal, total = int((pair[0] == pair[1]).sum()), len(pair[1])
        found |= {"top1": round(equal / total, 5), "samples": total, "interval": wilson(equal, total),
                  "largest_class": round(float(np.bincount(pair[1]).max() / total), 4)}
    return found


def wilson(hits, total, z=1.96):
    """The 95 % interval of a share.

    >>> wilson(97, 100)
    [0.9155, 0.9897]
    """
    share, square = hits / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / total / 4) / (1 + square)
    return [round(middle - half, 4), round(middle + half, 4)]


# ---- the ways -------------------------------------------------------------------------------------------------------
def clicked(model, target):
    """``one_click`` on the model as it is loaded; its float file comes from way "float", which took the time of it."""
    case = case_of(model)
    warm()
    kept = place(model, "float.tflite")
    if kept.exists() and not isinstance(case.source, bytes):
        pipeline._remember(source.read(case.source), kept.read_bytes())
    started = time.perf_counter()
    found = one_click(case.source, target)
    took, steps = time.perf_counter() - started, {step: round(spent, 2) for step, spent in found.seconds.items()}
    place(model, f"{target}.tflite").write_bytes(found.file.content)
    synthetic = dataclasses.asdict(dataclasses.replace(found.synthetic, inputs={}))
    counts = {str(bits): sum(one.bits == bits for one in found.kernels) for bits in (8, 4, 2)}
    blind = sum(not one.samples for one in (each.kernel for each in found.kernels))
    return judged(model, found.file.content) | {
        "packed": len(found.packed), "after": round(sum(spent for step, spent in steps.items() if step != "float"), 2),
        "whole": round(took, 2), "parts": steps, "precision": found.file.precision, "kernels": counts,
        "code": code(), "kernels_unwatched": blind, "synthetic": synthetic, "synthetic_db": round(found.snr_db, 1),
        "synthetic_top1": found.top1, "notes": list(found.notes), "settings": len(found.file.gate.ran),
    }  # fmt: skip


def warm():
    """Let the child process import TensorFlow: while TFLiteConverter works there is time enough."""
    with tempfile.TemporaryDirectory() as folder:
        worker.run("ready", Path(folder))


def code():
    """Of which code of ``data_free`` a row is."""
    folder = Path(click.__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:8]


def weight_only(model, _):
    """Eight bits a channel, nearest, for every operation that litert-quantizer has it for; activations float."""
    from litert_quantizer import qtyping, quantizer, recipe_manager

    manager, started = recipe_manager.RecipeManager(), time.perf_counter()
    manager.add_weight_only_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8)
    engine = quantizer.Quantizer(kept_float(model))
    engine.load_quantization_recipe(manager.get_quantization_recipe())
    content = bytes(engine.quantize(None, enable_progress_bar=False, enable_progress_report=False).quantized_model)
    after = round(time.perf_counter() - started, 2)
    place(model, "weight-only.tflite").write_bytes(content)
    return judged(model, content) | {"after": after}


def made(model, way):
    """Static int8 with ranges from normal noise, or from real inputs."""
    content, x = kept_float(model), opened(model, "calibration")
    if way == "noise":
        x = noise(model, content, x)
    warm()
    started = time.perf_counter()
    file = convert(content, "int8", x)
    after = round(time.perf_counter() - started, 2)
    place(model, f"{way.replace(' ', '-')}.tflite").write_bytes(file.content)
    return judged(model, file.content) | {"after": after, "notes": list(file.gate.notes)}


def noise(model, content, x):
    """As many inputs as there are real ones; whole numbers where an Embedding reads them."""
    if model in CASES and any(op.name == "GATHER" for graph in read(content).graphs for op in graph.ops):
        origin = source.read(CASES[model]().source)
        if any(type(layer).__name__ == "Embedding" for layer in origin.layers()):
            batches = samples.random_batches(Runner(content).accepts(), origin.layers())
            return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    random = np.random.default_rng(0)
    if isinstance(x, dict):
        return {name: random.standard_normal(array.shape).astype(array.dtype) for name, array in x.items()}
    return random.standard_normal(x.shape).astype(x.dtype)


def kept_float(model):
    path = place(model, "float.tflite")
    if not path.exists():
        raise FileNotFoundError("no float file: see way 'float'")
    return path.read_bytes()


def timed(model, _):
    """Microseconds of one run, one thread of this computer, the three files taking turns."""
    files = {"float": kept_float(model)}
    for way in MADE:
        path = place(model, f"{way}.tflite")
        if path.exists():
            files[way] = path.read_bytes()
    if len(files) == 1:
        raise FileNotFoundError("no file of one_click to be timed")
    return {"microseconds": {row.id: round(row.latency_p50_us, 1) for row in payoff(files)}}


WAYS = {"float": as_float, "weight-only": weight_only, "noise": made, "small": clicked, "fast": clicked,
        "real data": made, "time": timed}
