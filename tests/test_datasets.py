"""Splits: shapes, shares, no patient on two sides, and one clear sentence when data is not there."""

import os

import numpy as np
import pytest

from tfcompress.datasets import Splits, ecg, load, mitbih

needs_data = pytest.mark.skipif(
    not os.environ.get("TFCOMPRESS_DATA"), reason="MIT-BIH is in no package: set TFCOMPRESS_DATA to its folder"
)


@pytest.fixture(scope="module")
def heartbeats():
    return load("ecg")


def test_digits_are_stratified_disjoint_and_repeatable():
    one, two = load("digits"), load("digits")
    for part, share in (("train", 350), ("val", 50), ("test", 100)):
        x = getattr(one, f"x_{part}")
        np.testing.assert_array_equal(x, getattr(two, f"x_{part}"))
        assert np.bincount(getattr(one, f"y_{part}")).tolist() == [share] * 10
        assert x.min() == 0 and x.max() == 1
    assert not np.array_equal(load("digits", seed=1).y_train, one.y_train)


def test_splits_refuse_labels_that_do_not_fit():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="2 examples and 1 labels"):
        Splits("toy", ("a",), x, [0], x, [0, 0], x, [0, 0])
    with pytest.raises(ValueError, match=r"run from 0 to 5; expected 0\.\.1"):
        Splits("toy", ("a", "b"), x, [0, 5], x, [0, 0], x, [0, 0])


@needs_data
def test_patients_are_on_one_side_only(heartbeats):
    train, val, test = (set(g.tolist()) for g in (heartbeats.group_train, heartbeats.group_val, heartbeats.group_test))
    assert train | val == set(ecg.DS1) and test == set(ecg.DS2)
    assert not train & val
    assert np.bincount(heartbeats.y_test).tolist() == [44221, 1837, 3220, 388]
    for y in (heartbeats.y_train, heartbeats.y_val):
        assert (np.bincount(y, minlength=4) >= 30).all()


@needs_data
def test_each_beat_is_standardized(heartbeats):
    assert heartbeats.x_val.shape[1:] == (187, 1)
    np.testing.assert_allclose(heartbeats.x_val.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(heartbeats.x_val.std(1), 1, atol=1e-3)


@needs_data
def test_beatwise_split_holds_every_beat_once():
    beats = load("ecg", split="beat", classes="NSVFQ")
    assert len(beats.x_train) + len(beats.x_val) + len(beats.x_test) == 109_406
    assert set(beats.group_train.tolist()) & set(beats.group_test.tolist())


@needs_data
def test_raw_record_100_gives_the_prepared_beats():
    pytest.importorskip("wfdb")
    data = os.environ["TFCOMPRESS_DATA"]
    raw = mitbih.read_folder(os.path.join(data, "mitdb"))
    prepared = mitbih.read_npz(os.path.join(data, "mitbih_beats.npz"))
    of_100 = prepared.record == 100
    for field in ("x", "aami", "symbol", "record"):
        np.testing.assert_array_equal(getattr(raw, field), getattr(prepared, field)[of_100])


def test_missing_heartbeats_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("TFCOMPRESS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for options in ({}, {"path": tmp_path}):
        with pytest.raises(FileNotFoundError, match="set TFCOMPRESS_DATA to the folder"):
            load("ecg", **options)


def test_pickled_and_foreign_npz_are_refused(tmp_path):
    file = tmp_path / "mitbih_beats.npz"
    np.savez(file, x=np.array([{"a": 1}], object), aami=[0], symbol=["N"], record=[100])
    with pytest.raises(ValueError, match="not a file of MIT-BIH beats"):
        load("ecg", path=tmp_path)
    np.savez(file, other=[1])
    with pytest.raises(ValueError, match="not a file of MIT-BIH beats"):
        load("ecg", path=file)


@pytest.mark.parametrize("options", [{"split": "day"}, {"classes": "NX"}, {"classes": ""}])
def test_options_that_do_not_exist_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        load("ecg", **options)
