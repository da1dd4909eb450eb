"""Distillation on a student that needs help: every kind of teaching, 3 or more seeds, judged on the `.tflite` files.

    [TFCOMPRESS_DATA=...] python scripts/table_distill.py [--tasks clothes,patients] [--seeds 0,1,2]
        [--methods all|soft,hint]

clothes: Fashion-MNIST. The teacher (`image_resnet`, 311 k parameters) has seen all 54,000 training images; the student
(a quarter as wide, 20 k: a fifteenth) sees 6,000 of them. "half": the student's images are 14 x 14, a quarter of the
multiplications. Validation and test data are whole.
patients: whose heartbeat is it? Embeddings of single beats, trained to tell the 17 patients of the MIT-BIH training
records, are judged on 6,000 pairs of beats of the 22 test patients, none of whom was seen: cosine, best threshold by
10 folds. The student has at most a tenth of the teacher's parameters.
Every method trains from the same start weights, for as many steps, at the same rates, on one thread. Rows:
table_distill.jsonl, table: table_distill.md in scripts/results, models: runs/table_distill. Stopped or killed, the same
command goes on.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from controls import control_of
from table_distill_rows import line, write_tables

import tfcompress as tc
from android_bench.store import Store
from tfcompress import datasets, measure, training, zoo
from tfcompress.distillation.margin import MarginCrossEntropy, MarginSoftmax
from tfcompress.distillation.resolution import at_resolution, downsample, resolution_aware
from tfcompress.distillation.two_stage import embedding_of, representation_stage, two_stage
from tfcompress.distillation.verification import cosine_scores, pairs, verification_accuracy
from tfcompress.kept import save
from tfcompress.recipes import RECIPES
from tfcompress.stages import staged

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs/table_distill")
SAMPLES = 6000
RECIPE = replace(RECIPES["fashion_mnist"], epochs=16, batch_size=64)
# the teacher's block, the student's block, loss, weight, beside the soft targets: as RepDistiller weighs them (its hint
# has no 1/2: 50), but attention: of 1000, 100 and 10 the best on the validation data of seed 0
FEATURES = {"hint": [(1, 1, "hint", 100.0)], "attention": [(i, i, "attention", 10.0) for i in range(3)],
            "similarity": [(2, 2, "similarity", 3000.0)], "relation": [(2, 2, "relation", 25.0)],
            "mmd": [(2, 2, "mmd", 1.0)]}  # fmt: skip
RESOLUTION = (9.0, 1.0, 1.0, 0.1)  # alpha 0.9 as elsewhere: on the validation data of seed 0 better than (1, 1, 1, 0.1)
CLOTHES = ("none", "soft", *FEATURES, "two-stage", "half none", "half soft", "half resolution-aware")
PATIENTS = ("none", "two-stage", "representation")
SCALE, EPOCHS, RATE = 16.0, (10, 10), 2e-3


# ---- clothes ----------------------------------------------------------------------------------------------------
def blocks_of(model) -> list[str]:
    """The outputs of the residual blocks: the ReLU behind each sum."""
    layers = model.layers
    sums = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Add)]
    return [next(layer.name for layer in layers[i:] if isinstance(layer, keras.layers.ReLU)) for i in sums]


def taught(method: str, teacher, seed: int, splits) -> keras.Model:
    """The student of the clothes after its training."""
    step = len(splits.x_train) // SAMPLES
    some = slice(None, step * SAMPLES, step)
    part = replace(splits, x_train=splits.x_train[some], y_train=splits.y_train[some])
    student = zoo.build("image_resnet", splits.input_shape, splits.classes, width=8, seed=seed)
    half = method.startswith("half")
    student = at_resolution(student, 2) if half else student
    alpha = 0.0 if method.endswith("none") else 0.9
    recipe, view = RECIPE, (lambda x: downsample(x, 2)) if half else None
    if method == "half resolution-aware":
        model = resolution_aware(student, teacher, 2, weights=RESOLUTION)
    else:
        pairs_ = [(blocks_of(teacher)[i], blocks_of(student)[j], *rest) for i, j, *rest in FEATURES.get(method, ())]
        model = tc.Distiller(student, teacher, 4.0, alpha, features=pairs_, view=view)
    if method == "two-stage":
        hints = [(blocks_of(teacher)[1], blocks_of(student)[1], "hint", 1.0)]
        training.fit(tc.Distiller(student, teacher, alpha=None, features=hints), part,
                     replace(RECIPE, epochs=4), seed=seed)  # fmt: skip
        recipe = replace(RECIPE, epochs=12)
    training.fit(model, part, recipe, seed=seed)
    return student


def clothes(method: str, seed: int) -> dict:
    splits, folder = datasets.load("fashion_mnist"), RUNS / f"clothes-{seed}"
    teacher = control_of("image_resnet", {"width": 32}, RECIPES["fashion_mnist"], seed, splits, folder)
    student = taught(method, teacher, seed, splits)
    student.save(folder / f"{method.replace(' ', '_')}.keras")
    content = tc.convert(student).content
    x_test, x_val = splits.x_test, splits.x_val
    if method.startswith("half"):
        x_test, x_val = (np.asarray(downsample(x, 2)) for x in (x_test, x_val))
    row = dict(accuracy=measure.evaluate(content, x_test, splits.y_test).accuracy,
               validation=measure.evaluate(content, x_val, splits.y_val).accuracy)  # fmt: skip
    of_teacher = (folder / "control.tflite").read_bytes()
    row["teacher"] = measure.evaluate(of_teacher, splits.x_test, splits.y_test).accuracy
    return row | sizes(student, teacher, content, of_teacher)


def sizes(student, teacher, content: bytes, of_teacher: bytes) -> dict:
    return dict(parameters=student.count_params(), teacher_parameters=teacher.count_params(), bytes=len(content),
                macs=tc.inspect(content).macs, teacher_macs=tc.inspect(of_teacher).macs)  # fmt: skip


# ---- patients ---------------------------------------------------------------------------------------------------
def beats() -> tuple:
    """``(x, patient number)`` to train on, at most 300 beats a patient, and ``(x, patient)`` of the test patients."""
    splits = datasets.load("ecg", channels="beat")
    found = []
    for x, groups in ((splits.x_train, splits.group_train), (splits.x_test, splits.group_test)):
        rows = [np.flatnonzero(groups == one) for one in np.unique(groups)]
        chosen = np.concatenate([row[:: max(1, len(row) // 300)][:300] for row in rows])
        found.append((x[chosen], np.unique(groups[chosen], return_inverse=True)[1]))
    return tuple(found)


def embedding(width: float, seed: int) -> keras.Model:
    net = staged((187, 1), None, blocks=(1, 1, 1), channels=(32, 64, 128), width=width, embedding=64, seed=seed)
    return keras.Model(net.inputs, net.get_layer("embedding").output)


def in_two_steps(model, x, y=None, loss=None) -> None:
    """Train at one rate, then at a tenth of it: as long, and in the same steps, as `two_stage`."""
    for epochs, rate in zip(EPOCHS, (RATE, RATE / 10), strict=True):
        model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)


def classifier(net, classes: int, x, y) -> keras.Model:
    """The net trained with a margin head."""
    model = keras.Model(net.inputs, MarginSoftmax(classes, SCALE)(net.outputs[0]))
    in_two_steps(model, x, y, MarginCrossEntropy("cosface", SCALE))
    return model


def verified(net, x, y) -> tuple[dict, bytes]:
    """Verification of the file on pairs of beats of patients it never saw."""
    content, chosen = tc.convert(net).content, pairs(y, 6000, seed=0)
    found = verification_accuracy(cosine_scores(measure.run(content, x)[0], chosen), chosen.same)
    return dict(accuracy=found.accuracy, equal_error_rate=found.equal_error_rate), content


def patients(method: str, seed: int) -> dict:
    (x, y), (x_test, y_test) = beats()
    folder, classes = RUNS / f"patients-{seed}", int(y.max()) + 1
    path = folder / "teacher.keras"
    keras.utils.set_random_seed(seed)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save(classifier(embedding(1.0, seed), classes, x, y), path)
    teacher = keras.models.load_model(path, compile=False)
    student = embedding(0.25, seed)
    keras.utils.set_random_seed(seed)
    if method == "none":
        classifier(student, classes, x, y)
    elif method == "representation":
        in_two_steps(representation_stage(student, teacher), x)
    else:
        loss = MarginCrossEntropy("cosface", SCALE)
        two_stage(student, teacher, (x, y), epochs=EPOCHS, learning_rate=RATE, loss=loss)
    student.save(folder / f"{method}.keras")
    row, content = verified(student, x_test, y_test)
    of_teacher, whole = verified(embedding_of(teacher), x_test, y_test)
    return row | dict(validation=None, teacher=of_teacher["accuracy"]) | sizes(student, teacher, content, whole)


TASKS = {"clothes": (clothes, CLOTHES), "patients": (patients, PATIENTS)}


def main(options) -> None:
    store = Store(RESULTS / "table_distill.jsonl", key=("task", "seed", "method"))
    for seed, task in ((int(seed), task) for seed in options.seeds.split(",") for task in options.tasks.split(",")):
        make, methods = TASKS[task]
        for method in methods if options.methods == "all" else options.methods.split(","):
            row = dict(task=task, seed=seed, method=method)
            if store.key_of(row) in store:
                continue
            keras.backend.clear_session()
            started = time.perf_counter()
            row |= make(method, seed)
            store.append(row | {"seconds": time.perf_counter() - started})
            write_tables(store.read())
            print(line(store.read()[-1:], store.read()), flush=True)
    write_tables(store.read(), readme=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="clothes,patients")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="all", help="all, or names, such as soft,hint")
    training.pin_threads(1)
    main(parser.parse_args())
