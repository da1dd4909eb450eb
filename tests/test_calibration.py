"""Calibration data of every form ends as batches by input name; what looks wrong brings a warning or an error."""

import warnings

import numpy as np
import pytest

from tfcompress.conversion.calibration import Calibration, CalibrationWarning, bind, cut, first
from tfcompress.conversion.interpreter import Tensor


def spec(name="image", shape=(None, 4, 4, 1), dtype="float32"):
    return {name: Tensor(name, shape, dtype, 0.0, 0)}


TWO = {**spec("zebra", (None, 3)), **spec("ant", (None, 2))}
IMAGES = np.random.default_rng(0).standard_normal((120, 4, 4, 1)).astype("float32")


def joined(batches, name="image"):
    return np.concatenate([batch[name] for batch in batches])


def dataset(batched, labels):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(120)) if labels else IMAGES)
    return data.batch(50) if batched else data


@pytest.mark.parametrize(
    "data",
    [
        IMAGES, {"image": IMAGES}, list(IMAGES), (image for image in IMAGES),
        lambda: ([image[None]] for image in IMAGES), lambda: ({"image": image} for image in IMAGES),
        [{"image": IMAGES[:60]}, {"image": IMAGES[60:]}], zip(IMAGES, range(120), strict=True),
        [IMAGES[:100], IMAGES[100:]], Calibration(IMAGES),
    ],
    ids="array dict list generator representative_dataset dicts batches labels arrays object".split(),
)  # fmt: skip
def test_every_form_gives_the_same_samples(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = bind(data, spec())
    assert np.array_equal(joined(batches), IMAGES) and {len(b["image"]) for b in batches} <= {16, 8, 12, 4}


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("labels", [True, False])
def test_tf_data_with_and_without_batches_and_labels(batched, labels):
    assert np.array_equal(joined(bind(dataset(batched, labels), spec())), IMAGES)


def test_files(tmp_path):
    np.savez(tmp_path / "x.npz", image=IMAGES)
    np.save(tmp_path / "x.npy", IMAGES)
    for name in ("x.npz", "x.npy"):
        assert np.array_equal(joined(bind(tmp_path / name, spec())), IMAGES)


def test_a_pickled_or_torn_file_is_an_error(tmp_path):
    np.savez(tmp_path / "pickled.npz", image=np.array([{"a": 1}], dtype=object))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:40])
    (tmp_path / "text.npz").write_text("hello")
    for name in ("pickled.npz", "torn.npz", "text.npz"):
        with pytest.raises(ValueError, match="no pickled objects"):
            bind(tmp_path / name, spec())
    with pytest.raises(ValueError, match="No calibration file"):
        bind(tmp_path / "none.npz", spec())


def test_several_inputs_by_name_and_by_order():
    zebra, ant = np.ones((100, 3), "float32") * np.arange(100)[:, None], np.ones((100, 2)) * np.arange(100)[:, None]
    for data in (
        {"ant": ant, "zebra": zebra}, [zebra, ant],
        lambda: ({"ant": a, "zebra": z} for z, a in zip(zebra, ant, strict=True)),
        lambda: zip(zebra, ant, strict=True), lambda: ((pair, 0) for pair in zip(zebra, ant, strict=True)),
    ):  # fmt: skip
        batches = bind(data, TWO)
        assert np.array_equal(joined(batches, "zebra"), zebra) and np.array_equal(joined(batches, "ant"), ant)


def test_other_names_of_an_input():
    batches = bind({"input_layer_7": IMAGES}, spec(), aliases={"input_layer_7": "image"})
    assert np.array_equal(joined(batches), IMAGES)


def test_a_fixed_batch_size_and_free_sizes():
    batches = bind(IMAGES, spec(shape=(1, 4, 4, 1)))
    assert len(batches) == 120 and batches[0]["image"].shape == (1, 4, 4, 1)
    mixed = [np.ones((n, n, 1)) * i for i, n in enumerate([5, 5, 7] * 40)]
    assert {b["image"].shape[1] for b in bind(mixed, spec(shape=(None, None, None, 1)))} == {5, 7}


def test_long_data_is_thinned_out_evenly():
    data = np.arange(6000, dtype="float32")[:, None]
    kept = joined(bind(data, spec("x", (None, 1))), "x")[:, 0]
    assert len(kept) == 512 and kept[0] == 0 and kept[-1] == 5999 and np.diff(kept).max() <= 12


@pytest.mark.parametrize(
    "data, words",
    [
        (np.zeros((100, 4, 4, 3)), r"shape \(100, 4, 4, 3\). Expected \(samples, 4, 4, 1\)"),
        (np.zeros((0, 4, 4, 1)), "empty"), ([], "empty"), (iter(()), "empty"), (np.full((9, 4, 4, 1), np.nan), "NaN"),
        ({"picture": IMAGES}, r"Expected \['image'\]. Received \['picture'\]"), (7, "Received: int"),
        (np.array(["a"]), "must be numbers"), ([(1, 2, 3, 4, 5)], "Expected 1 arrays"),
    ],
)  # fmt: skip
def test_bad_data_is_one_error(data, words):
    with pytest.raises(ValueError, match=words):
        bind(data, spec())


def test_bad_data_for_several_inputs():
    with pytest.raises(ValueError, match="Give a dict"):
        bind(np.zeros((100, 3)), TWO)
    with pytest.raises(ValueError, match="differ in their number of samples"):
        bind({"zebra": np.zeros((100, 3)), "ant": np.zeros((99, 2))}, TWO)
    with pytest.raises(ValueError, match="holds fractions"):
        bind(np.full((100, 3), 0.5), spec("ids", (None, 3), "int32"))


@pytest.mark.parametrize(
    "data, words, options",
    [
        (IMAGES[:20], "Only 20 calibration samples", {}),
        (np.random.default_rng(0).uniform(0, 255, (120, 4, 4, 1)), "Rescaling", {}),
        (np.zeros((120, 4, 4, 1)), "All calibration values", {}),
        (np.where(np.arange(120)[:, None, None, None] == 5, 99, IMAGES), "sample 5 of 'image' reaches 99", {}),
        (np.concatenate([IMAGES] * 3 + [IMAGES * 1e4], -1), "in int8 the small ones vanish", {"channels": 4}),
        (Calibration(IMAGES, (0.0, 255.0)), "far from the training data's 0..255", {}),
        (Calibration(IMAGES * 9, {"image": (-4.0, 4.0)}), "far from the training data's -4..4", {}),
    ],
)  # fmt: skip
def test_suspicious_data_brings_a_warning(data, words, options):
    with pytest.warns(CalibrationWarning, match=words):
        bind(data, spec(shape=(None, 4, 4, options.get("channels", 1))))


def test_raw_pixels_are_right_for_a_model_that_rescales():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(np.random.default_rng(0).uniform(0, 255, (120, 4, 4, 1)), spec(), normalized=True)
        bind(Calibration(IMAGES, (-4.0, 4.0)), spec())


def test_cut_pads_the_last_batch_of_a_fixed_size():
    pieces = list(cut(IMAGES[:5], spec(shape=(2, 4, 4, 1))))
    assert [(len(batch["image"]), held) for batch, held in pieces] == [(2, 2), (2, 2), (2, 1)]
    assert [held for _, held in cut(IMAGES, spec())] == [32, 32, 32, 24]
    assert sum(len(batch["image"]) for batch in first(bind(IMAGES, spec()), 20)) == 20
