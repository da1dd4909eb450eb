"""Splits: shapes, shares, no patient on two sides, and one clear sentence when data is not there."""

import gzip
import os

import numpy as np
import pytest

from tfcompress.datasets import Splits, ecg, load, mitbih, patient

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
    assert heartbeats.input_shape == (187, 4)
    np.testing.assert_allclose(heartbeats.x_val[..., 0].mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(heartbeats.x_val[..., 0].std(1), 1, atol=1e-3)
    np.testing.assert_array_equal(load("ecg", channels="beat").x_val, heartbeats.x_val[..., :1])


@needs_data
def test_intervals_found_in_the_windows_are_those_of_the_annotations():
    wfdb = pytest.importorskip("wfdb")
    data = os.environ["TFCOMPRESS_DATA"]
    beats = mitbih.read_folder(os.path.join(data, "mitdb"))
    notes = wfdb.rdann(os.path.join(data, "mitdb", "100"), "atr")
    peaks = np.rint(notes.sample[np.isin(notes.symbol, list(mitbih.AAMI))] * 125 / 360)
    peaks = peaks[(peaks >= 60) & (peaks + 127 <= 650_000 * 125 / 360)]
    np.testing.assert_array_equal(patient.intervals(beats.x, beats.record)[1:], np.diff(peaks))


def test_patient_channels_see_the_usual_beat_the_early_one_and_no_other_record():
    signal = np.random.default_rng(0).integers(-999, 999, 12_000).astype("int16")
    peaks = np.arange(100) * 100
    peaks[50] -= 40  # one premature beat
    x = np.stack([signal[peak : peak + 187] for peak in peaks])
    two = patient.channels(np.concatenate([x, x]), np.repeat([1, 2], 100))
    np.testing.assert_array_equal(two[:100], two[100:])
    assert np.ptp(two[..., 2:], axis=1).max() == 0
    before, after = two[:100, 0, 2], two[:100, 0, 3]
    assert before.argmin() == 50 and after.argmax() == 50
    np.testing.assert_allclose(before[50], 5 * np.log(0.6), atol=0.05)
    np.testing.assert_allclose(np.delete(before, [50, 51]), 0, atol=0.1)
    future = x.copy()
    future[64:] = 7  # what comes later changes nothing before, but for the interval that follows
    np.testing.assert_array_equal(patient.channels(future, np.ones(100))[:63], two[:63])


def test_a_record_of_one_beat_survives():
    assert np.isfinite(patient.channels(np.arange(187, dtype="int16")[None], np.ones(1))).all()


@needs_data
def test_beatwise_split_holds_every_beat_once():
    beats = load("ecg", split="beat", channels="beat", classes="NSVFQ")
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


def test_a_download_that_breaks_off_is_one_sentence_and_not_taken_for_the_data(tmp_path, monkeypatch):
    wfdb = pytest.importorskip("wfdb")

    def breaks_off(name, folder):
        assert name == "mitdb"
        for record in (100, 101, 102):
            open(os.path.join(folder, f"{record}.atr"), "w").close()
        raise ConnectionResetError("gone")

    monkeypatch.setattr(wfdb, "dl_database", breaks_off)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=r"PhysioNet did not give MIT-BIH \(ConnectionResetError\)"):
            load("ecg", path=tmp_path, download=True)
    assert not (tmp_path / "mitdb").exists()


def test_pickled_and_foreign_npz_are_refused(tmp_path):
    file = tmp_path / "mitbih_beats.npz"
    np.savez(file, x=np.array([{"a": 1}], object), aami=[0], symbol=["N"], record=[100])
    with pytest.raises(ValueError, match="not a file of MIT-BIH beats"):
        load("ecg", path=tmp_path)
    np.savez(file, other=[1])
    with pytest.raises(ValueError, match="not a file of MIT-BIH beats"):
        load("ecg", path=file)


@pytest.mark.parametrize("options", [{"split": "day"}, {"channels": "all"}, {"classes": "NX"}, {"classes": ""}])
def test_options_that_do_not_exist_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        load("ecg", **options)


def test_fashion_mnist_reads_the_files_of_the_debian_package(tmp_path):
    for part, count in (("train", 20), ("t10k", 5)):
        pixels = np.arange(count * 784, dtype="uint8")
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels.reshape(count, 28, 28))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype="uint8") % 10)
    clothes = load("fashion_mnist", path=tmp_path)
    assert str(clothes) == "fashion_mnist: (28, 28, 1) -> 10 classes; 18 train, 2 validation, 5 test"
    np.testing.assert_allclose(clothes.x_test[0, 0, :3, 0], [0, 1 / 255, 2 / 255])
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"))
    with pytest.raises(ValueError, match="not an idx file of bytes"):
        load("fashion_mnist", path=tmp_path)
    with pytest.raises(FileNotFoundError, match="No folder"):
        load("fashion_mnist", path=tmp_path / "nowhere")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_japanese_vowels_pad_in_front_and_keep_speakers_apart(tmp_path):
    cases = [":".join(["1.5,2.5"] * 12 + [str(1 + i % 9)]) for i in range(63)]
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text("\n".join(["#comment", "@data", *cases]))
    vowels = load("japanese_vowels", path=tmp_path)
    assert vowels.x_train.shape == (9, 29, 12) and np.bincount(vowels.y_val).tolist() == [6] * 9
    assert vowels.x_test[0, :, 0].tolist() == [0] * 27 + [1.5, 2.5]
    with pytest.raises(FileNotFoundError, match="pip install --no-deps aeon"):
        load("japanese_vowels", path=tmp_path / "nowhere")


def test_spoken_digits_put_silence_in_front_and_split_by_speaker(tmp_path):
    clips = [np.random.default_rng(i).integers(-999, 999, 1000).astype("int16") for i in range(30)]
    np.savez(
        tmp_path / "spoken_digits_8k.npz",
        data=np.concatenate(clips),
        offset=np.arange(31) * 1000,
        label=np.arange(30) % 10,
        index=np.arange(30) % 10,
        speaker=np.repeat(["a", "b", "c"], 10),
    )
    spoken = load("spoken_digits", path=tmp_path, split="speaker")
    assert spoken.x_train.shape == (10, 48, 20) and set(spoken.group_test) == {"c"}
    assert not spoken.x_train[:, :42].any() and spoken.x_train[:, 42:].any()
    with pytest.raises(FileNotFoundError, match="set TFCOMPRESS_DATA"):
        load("spoken_digits", path=tmp_path / "nowhere")


@needs_data
def test_real_spoken_digits_keep_the_official_test_clips():
    spoken = load("spoken_digits")
    assert len(spoken.x_test) == 250 and np.bincount(spoken.y_test).tolist() == [25] * 10
