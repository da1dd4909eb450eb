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
from tfcompress.quantization.aware import calibrate, quantize_aware
from tfcompress.recipes import Recipe
from tfcompress.schedules import Constant
from tfcompress.tasks.task import TaskData
from tfcompress.tasks.training import Batches
from tfcompress.wrapper import Compressed


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


def series():
    """Bars as series of 32 steps with 32 channels: for the 1-D CNN."""
    data = bars(lambda label, *_: label)
    return dataclasses.replace(data, x_train=data.x_train[..., 0], x_val=data.x_val[..., 0], x_test=data.x_test[..., 0])


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
    "classification": (series, {}, 0.6, 0.2),
    "multi_label": (lambda: bars(lambda label, *_: np.eye(2, dtype=int)[label]), {"epochs": 3}, 0.6, 0.2),
    "regression": (lambda: tasks.load("regression", "auto_mpg"), {"epochs": 20, "batch_size": 32}, 6.6, 2.0),
    "sequence_labelling": (lambda: tasks.load("sequence_labelling", train=120, val=20, test=60), {"epochs": 3}, None,
                           0.05),
    "ocr": (two_digits, {"epochs": 3}, 1.0, 0.2),
    "verification": (lambda: tasks.load("verification", train=420, val=70, test=150), {"epochs": 2}, 0.5, 0.1),
    "detection": (lambda: bars(box), {"epochs": 5}, 0.0, 0.3),
    "segmentation": (lambda: bars(mask), {"epochs": 5}, 1 / 3, 0.1),
}


@pytest.fixture(scope="module", params=SHORT)
def short(request):
    """(task, data, trained model, its history, the score of a guess, by how much to beat it). Detection is pruned."""
    make, changed, guess, better = SHORT[request.param]
    task, data, recipe = tasks.TASKS[request.param], make(), dataclasses.replace(FAST, **changed)
    model = task.model(data, 0)
    if request.param == "detection":
        model = compress(model, Prune(Constant(0.5)))
        history = tasks.fit(model, task, data, recipe, callbacks=[CompressionCallback()])
        assert history.history["sparsity"][-1] == pytest.approx(0.5, abs=0.02)
        model = strip(model)
    else:
        history = tasks.fit(model, task, data, recipe)
    return task, data, model, history, majority(data.y_test) if guess is None else guess, better


def outputs(model, x):
    found = model(x, training=False)
    return [np.asarray(part) for part in (found if isinstance(found, list | tuple) else [found])]


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
    x = data.x_test[:4]
    float_outputs = outputs(task.export(model), x)
    wrapped = [layer for layer in compress(model, Prune(Constant(0.5))).layers if isinstance(layer, Compressed)]
    assert len(wrapped) >= 2
    aware = quantize_aware(model)
    calibrate(aware, data.x_train[:32])
    assert repr(task.loss(aware)) and task.targets(aware, data.y_train[:2]) is not None
    for rounded, exact in zip(outputs(task.export(aware), x), float_outputs, strict=True):
        assert np.corrcoef(rounded.ravel(), exact.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_going_on_with_the_same_seed_is_as_never_having_stopped(tmp_path):
    """Stopped after two epochs of three: from a saved model, and by Keras' own callback."""
    task, data = tasks.TASKS["regression"], tasks.load("regression", "auto_mpg")
    recipe = Recipe(epochs=3, batch_size=64, learning_rate=5e-3, noise=0.1)
    whole, killed, restored = (task.model(data, 0) for _ in range(3))
    tasks.fit(whole, task, data, recipe, seed=1)

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.save(tmp_path / "half.keras")
                raise KeyboardInterrupt

    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        tasks.fit(killed, task, data, recipe, seed=1, callbacks=[backup[0], Kill()])
    loaded = keras.models.load_model(tmp_path / "half.keras")
    histories = [tasks.fit(loaded, task, data, recipe, seed=1, initial_epoch=2),
                 tasks.fit(restored, task, data, recipe, seed=1, callbacks=[backup[1]])]
    assert [history.epoch for history in histories] == [[2], [2]]
    for model in (loaded, restored):
        for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_order_of_examples_comes_from_seed_and_epoch():
    x, recipe = np.arange(40.0)[:, None], Recipe(epochs=2, batch_size=40)
    streams = [Batches(x, x[:, 0], x[:, 0], recipe, seed) for seed in (1, 1, 2)]
    first_epoch = [stream[0][0].ravel().tolist() for stream in streams]
    streams[0].epoch = 1
    second = streams[0][0][0].ravel().tolist()
    assert first_epoch[0] == first_epoch[1] != first_epoch[2] and second != first_epoch[0]
    assert sorted(second) == sorted(first_epoch[2]) == list(range(40))


@pytest.mark.slow
def test_a_teacher_adds_its_outputs_to_the_loss():
    task, data = tasks.TASKS["regression"], tasks.load("regression", "auto_mpg")
    taught = task.teach(task.model(data, 0), task.model(data, 1), alpha=0.5)
    assert tasks.fit(taught, task, data, Recipe(epochs=1)).history["hint"][0] > 0
    assert [name for name, task in tasks.TASKS.items() if task.teach is None] == ["ocr", "detection"]


@pytest.mark.slow
def test_one_sigmoid_learns_two_classes_and_no_more():
    x = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
    y = (x[:, 0] > 0.3).astype(int)
    data = TaskData("sides", x, y, x, y, x, y, class_names=("left", "right"))
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    task = tasks.TASKS["classification"]
    tasks.fit(net, task, data, Recipe(epochs=20, batch_size=16, learning_rate=2e-2))
    assert task.score([net.predict(x, verbose=0)], y) > 0.95
    three = dataclasses.replace(data, y_train=y + 1, class_names=("left", "right", "up"))
    with pytest.raises(ValueError, match="One sigmoid tells two classes apart. Received: class numbers up to 2"):
        tasks.fit(net, task, three, FAST)


def test_mixed_inputs_are_for_a_student_that_looks_at_no_labels():
    """A student of the teacher's shape that sees mixtures only comes nearer to what the teacher says of mixtures."""
    task, data = tasks.TASKS["classification"], series()
    teacher, student = task.model(data, 0), task.model(data, 1)
    tasks.fit(teacher, task, data, FAST)
    rng = np.random.default_rng(0)
    share = rng.random((60, 1, 1), "float32")
    x = share * data.x_train[:60] + (1 - share) * data.x_train[60:120]
    far, recipe = apart(teacher, student, x), dataclasses.replace(FAST, mixup=1.0)
    tasks.fit(task.teach(student, teacher, 1.0, 1.0), task, data, recipe)
    assert apart(teacher, student, x) < far / 2
    with pytest.raises(ValueError, match="The recipe has mixup"):
        tasks.fit(task.teach(student, teacher, 1.0, 0.9), task, data, recipe)


def apart(one, other, x):
    return np.abs(one.predict(x, verbose=0) - other.predict(x, verbose=0)).mean()


@pytest.mark.parametrize("option", [{"shift": 2}, {"balance": 0.5}, {"mixup": 0.2}, {"label_smoothing": 0.1}])
def test_a_recipe_that_would_move_x_and_not_y_is_refused(option):
    data = bars(mask, count=181)
    with pytest.raises(ValueError, match=f"The recipe has {next(iter(option))}.*dataclasses.replace"):
        tasks.fit(None, tasks.TASKS["segmentation"], data, Recipe(epochs=1, **option))


def test_balanced_batches_draw_rare_classes_as_often():
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


@pytest.mark.parametrize("name, thousands", [
    ("multi_label", 78), ("sequence_labelling", 46), ("ocr", 63), ("verification", 127), ("detection", 107),
    ("segmentation", 91), ("regression", 45),
])  # fmt: skip
def test_default_nets_have_the_size_that_their_docstrings_tell(name, thousands):
    task = tasks.TASKS[name]
    sizes = {} if name == "regression" else {"train": 100, "val": 10, "test": 60}
    net = task.export(task.model(tasks.load(name, **sizes), 0))
    assert round(net.count_params() / 1000) == thousands
