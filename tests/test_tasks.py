"""Each task from its default net to a judged `.tflite`: it learns, and the file does what Keras does."""

import dataclasses

import keras
import numpy as np
import pytest

from tfcompress import measure, tasks
from tfcompress.callback import CompressionCallback
from tfcompress.convert import convert
from tfcompress.model import compress, strip
from tfcompress.pruning.prune import Prune
from tfcompress.quantization.aware import quantize_aware
from tfcompress.recipes import Recipe
from tfcompress.schedules import Constant
from tfcompress.tasks.task import TaskData


def first(data, train, val=40, test=120):
    """The data with fewer examples."""
    counts = {"train": train, "val": val, "test": test}
    return dataclasses.replace(data, **{f"{axis}_{part}": getattr(data, f"{axis}_{part}")[:count]
                                        for part, count in counts.items() for axis in "xy"})


def bars(make_y, count=240):
    """Images 32 x 32 with a broad bar (class 0) or a thin one (class 1): something to learn in seconds."""
    rng = np.random.default_rng(0)
    x, y = np.zeros((count, 32, 32, 1), "float32"), []
    for image in x:
        label, top, left = rng.integers(0, [2, 20, 20])
        width = (9, 3)[label]
        image[top : top + 11, left : left + width] = 1
        y.append(make_y(label, top, left, top + 11, left + width))
    names = ("background", "broad", "thin") if np.ndim(y) == 3 and np.shape(y)[1] == 32 else ("broad", "thin")
    cuts = [array[part] for part in (slice(160), slice(160, 180), slice(180, None)) for array in (x, np.array(y))]
    return TaskData("bars", *cuts, class_names=names)


def mask(label, top, left, bottom, right):
    y = np.zeros((32, 32), "int32")
    y[top:bottom, left:right] = label + 1
    return y


def box(label, *corners):
    return np.array([[label, *(corner / 32 for corner in corners)], [-1] * 5], "float32")


def two_digits():
    """Lines of noughts and ones, as a text."""
    from tfcompress import datasets
    from tfcompress.tasks import lines

    splits, arrays = datasets.load("digits"), []
    for part, count in (("train", 240), ("val", 20), ("test", 60)):
        x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
        made = lines.compose(x[y < 2], y[y < 2], count, seed=1)
        arrays += [made.x, made.text]
    return TaskData("two digits", *arrays, class_names=("0", "1"))


def majority(y):
    return np.bincount(y[y >= 0]).max() / (y >= 0).sum()


FAST = Recipe(epochs=4, batch_size=16, learning_rate=5e-3)
# task: (data, what its recipe has instead, score that asks for nothing, and how much better it must be)
SHORT = {
    "classification": (lambda: first(tasks.load("classification", "digits"), 500), {"epochs": 3}, 0.1, 0.2),
    "multi_label": (lambda: bars(lambda label, *_: np.eye(2, dtype=int)[label]), {}, 0.6, 0.2),
    "regression": (lambda: tasks.load("regression", "auto_mpg"), {"epochs": 25}, 6.6, 2.0),
    "sequence_labelling": (lambda: tasks.load("sequence_labelling", train=240, val=20, test=60), {}, None, 0.1),
    "ocr": (two_digits, {}, 1.0, 0.3),
    "verification": (lambda: tasks.load("verification", train=700, val=70, test=150), {"epochs": 2}, 0.5, 0.2),
    "detection": (lambda: bars(box), {"epochs": 8}, 0.0, 0.4),
    "segmentation": (lambda: bars(mask), {"epochs": 6}, 1 / 3, 0.2),
}


@pytest.fixture(scope="module", params=SHORT)
def short(request):
    """(task, data, trained model, its history, the score of a guess, by how much to beat it)."""
    make, changed, guess, better = SHORT[request.param]
    task, data = tasks.TASKS[request.param], make()
    model = task.model(data, 0)
    history = tasks.fit(model, task, data, dataclasses.replace(FAST, **changed))
    return task, data, model, history, majority(data.y_test) if guess is None else guess, better


def outputs(model, x):
    found = model.predict(x, verbose=0)
    return list(found) if isinstance(found, list | tuple) else [found]


@pytest.mark.slow
def test_the_file_is_better_than_a_guess_and_judged_like_the_net(short):
    task, data, model, history, guess, better = short
    assert history.history["loss"][-1] < 0.9 * history.history["loss"][0]
    shipped = task.export(model)
    of_file = task.score(measure.run(convert(shipped), data.x_test), data.y_test)
    assert of_file == pytest.approx(task.score(outputs(shipped, data.x_test), data.y_test), abs=0.01)
    sign = 1 if task.higher_is_better else -1
    assert sign * (of_file - guess) > better, (of_file, guess)


@pytest.mark.slow
def test_every_default_net_takes_pruning_and_quantization_aware_training(short):
    task, data, model, *_ = short
    pruned = compress(model, Prune(Constant(0.5)))
    loss = task.loss(pruned)
    pruned.compile("adam", loss)
    batch = data.x_train[:16], task.targets(pruned, data.y_train[:16])
    pruned.fit(*batch, verbose=0, callbacks=[CompressionCallback()])
    plain = task.export(strip(pruned))
    kernels = [w for w in plain.weights if w.name == "kernel" and "logits" not in w.path]
    assert max(np.mean(np.asarray(w) == 0) for w in kernels) == pytest.approx(0.5, abs=0.05)
    aware = quantize_aware(model)
    assert [tuple(o.shape) for o in aware.outputs] == [tuple(o.shape) for o in model.outputs]
    assert np.isfinite(sum(float(np.mean(part)) for part in outputs(task.export(aware), data.x_test[:4])))


@pytest.fixture(scope="module")
def table():
    return tasks.TASKS["regression"], tasks.load("regression", "auto_mpg")


@pytest.mark.slow
def test_same_seed_same_weights_and_going_on_is_as_never_having_stopped(table, tmp_path):
    task, data = table
    recipe = Recipe(epochs=4, batch_size=64, learning_rate=5e-3, noise=0.1)
    whole, again, other = (task.model(data, 0) for _ in range(3))
    for model, seed in ((whole, 1), (again, 1), (other, 2)):
        tasks.fit(model, task, data, recipe, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), again.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), other.get_weights(), strict=True))

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    half = task.model(data, 0)
    tasks.fit(half, task, data, recipe, seed=1, callbacks=[Stop()])
    half.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    history = tasks.fit(loaded, task, data, recipe, seed=1, initial_epoch=2)
    assert len(history.history["loss"]) == 2
    for a, b in zip(whole.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_killed_training_is_restored_by_keras_own_callback(table, tmp_path):
    task, data = table
    recipe = Recipe(epochs=3, batch_size=64, learning_rate=5e-3)
    whole, killed, restored = (task.model(data, 0) for _ in range(3))
    tasks.fit(whole, task, data, recipe)

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        tasks.fit(killed, task, data, recipe, callbacks=[backup[0], Kill()])
    history = tasks.fit(restored, task, data, recipe, callbacks=[backup[1]])
    assert history.epoch == [2]
    for a, b in zip(whole.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi_label", "regression"])
def test_a_teacher_adds_its_outputs_to_the_loss(name):
    task, data = tasks.TASKS[name], SHORT[name][0]()
    student, teacher = task.model(data, 0), task.model(data, 1)
    taught = task.teach(student, teacher, alpha=0.5)
    history = tasks.fit(taught, task, data, Recipe(epochs=1, batch_size=16)).history
    assert history["hint" if name == "regression" else "soft_loss"][0] > 0
    assert tasks.TASKS["detection"].teach is None and tasks.TASKS["ocr"].teach is None


@pytest.mark.parametrize("option", [{"shift": 2}, {"balance": 0.5}, {"mixup": 0.2}, {"label_smoothing": 0.1}])
def test_a_recipe_that_would_move_x_and_not_y_is_refused(option):
    data = bars(mask, count=181)
    with pytest.raises(ValueError, match=f"The recipe has {next(iter(option))}.*dataclasses.replace"):
        tasks.fit(None, tasks.TASKS["segmentation"], data, Recipe(epochs=1, **option))


def test_balanced_batches_draw_rare_classes_as_often():
    from tfcompress.tasks.training import Batches

    y = np.repeat([0, 1], [190, 10])
    stream = Batches(np.arange(200.0)[:, None], y, y, Recipe(epochs=1, batch_size=400, samples=400, balance=1.0), 0)
    assert 0.4 < stream[0][1].mean() < 0.6


@pytest.mark.parametrize("name", ["segmentation", "detection", "ocr", "sequence_labelling", "regression",
                                  "classification"])
def test_examples_that_the_default_net_does_not_take_are_named(name):
    shape = {"regression": (5, 5), "classification": (7,)}.get(name, (30, 31, 1))
    data = TaskData("odd", *[np.zeros((2, *shape)), np.zeros((2, 1))] * 3, class_names=("a", "b"))
    with pytest.raises(ValueError, match="Received"):
        tasks.TASKS[name].model(data, 0)
