"""The gate: a file that does not run is an error, and the report tells how far the file is from the model."""

import signal

import keras
import numpy as np
import pytest

from tfcompress.conversion import gate, islands, pipeline
from tfcompress.conversion.batches import load_batches, save_batches
from tfcompress.conversion.worker import ConversionError, worker
from tfcompress.convert import convert

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::tfcompress.convert.CalibrationWarning")
X = np.random.default_rng(0).standard_normal((100, 6)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6,), name="x"), L.Dense(8, activation="softplus"), L.Dense(3, name="y")])


def test_the_report_of_a_float_file(model):
    report = convert(model).gate
    assert report.ran == (
        "ai_edge_litert, default delegate", "ai_edge_litert, built-in kernels",
        "tf.lite, default delegate", "tf.lite, built-in kernels",
    )  # fmt: skip
    row = report.agreement[0]
    assert row.output == "y" and row.unit == "absolute" and row.max_difference < 1e-5 and row.top1 == 1.0
    assert report.inputs == "random inputs" and report.reference == "Keras model" and report.samples == 32
    assert max(report.elsewhere.values()) < 1e-5


def test_the_report_of_an_int8_file(model):
    report = convert(model, "int8", X).gate
    row = report.agreement[0]
    assert row.unit == "LSB" and row.max_difference == round(row.max_difference) and 0 < row.bit_equal < 1
    assert report.inputs == "calibration data" and report.samples == 96
    assert report.float_islands and all("softplus" in name.lower() for name in report.float_islands)
    assert "max" in str(report) and "float islands: " in str(report)


def test_compare_counts_levels_and_top1():
    scale = (0.5, 10, -128, 127)
    got = [{"y": np.array([[0.5, 1.0], [2.0, 0.0]])}]
    expected = [{"y": np.array([[0.4, 1.9], [2.1, 3.0]])}]
    row = gate.compare("y", got, expected, scale)
    assert (row.unit, row.max_difference, row.mean_difference) == ("LSB", 6, 2.0)
    assert (row.bit_equal, row.top1) == (0.5, 0.5)
    row = gate.compare("y", got, expected, None)
    assert row.unit == "absolute" and row.max_difference == pytest.approx(3.0) and row.bit_equal == 0.0


def test_the_bound_holds_for_every_output_and_setting():
    """Two outputs of sizes 1 and 1000: each has its own bound, in the first setting and in the others."""
    expected = [{"y": np.array([[0.5, 1.0]]), "z": np.array([[1000.0]])}]
    expected.append({"y": np.zeros((1, 2)), "z": np.zeros((1, 1))})
    near = [{"y": batch["y"] + 9e-5, "z": batch["z"] + 0.09} for batch in expected]
    gate._refuse_distance([near, near[:1]], expected, 1e-4, np.max, "exact")
    far = [{"y": near[0]["y"], "z": near[0]["z"] + 0.02}]
    for runs, name in (([near, far], "z"), ([[*near[:1], {"y": expected[1]["y"] + 2e-4, "z": near[1]["z"]}]], "y")):
        with pytest.raises(ConversionError, match=rf"output '{name}' is .* from the model's"):
            gate._refuse_distance(runs, expected, 1e-4, np.max, "exact")


def test_compare_refuses_another_shape():
    with pytest.raises(ConversionError, match="shape"):
        gate.compare("y", [{"y": np.zeros((2, 3))}], [{"y": np.zeros((2, 4))}], None)


def test_the_steps_of_outputs_behind_float_io(model):
    floats, ints = convert(model, "int8", X), convert(model, "int8", X, io="int8")
    assert islands.output_scales(floats.content) == islands.output_scales(ints.content)
    assert islands.output_scales(convert(model).content) == {}


def test_large_float_weights_are_listed():
    model = keras.Sequential([keras.Input((6, 6, 6, 1)), L.Conv3D(40, 3, name="c3"), L.Flatten(), L.Dense(2)])
    file = convert(model, "dynamic")
    assert [name.split()[0] for name in file.gate.float_weights] == ["CONV_3D"]


def test_a_file_that_does_not_run_is_an_error_and_nothing_is_written(model, monkeypatch, tmp_path):
    def damage(self, precision, *_):
        path = self.folder / "damaged.tflite"
        content = bytearray(self.float_file.read_bytes())
        content[8:-8] = bytes(len(content) - 16)
        path.write_bytes(content)
        return path, 0.0, []

    monkeypatch.setattr(pipeline.Pipeline, "write", damage)
    with pytest.raises(
        ConversionError, match="does not run in ai_edge_litert, default delegate, so nothing was written"
    ):
        convert(model)


def test_a_crash_in_the_child_is_one_error_and_the_next_job_runs(tmp_path):
    with pytest.raises(ConversionError, match=r"crash step died with signal 11 \(SIGSEGV\)"):
        worker.run("crash", tmp_path, number=int(signal.SIGSEGV))
    with pytest.raises(ConversionError, match="FileNotFoundError"):
        worker.run("adopt", tmp_path, path=str(tmp_path / "none"), output=str(tmp_path / "out"))
    assert worker.run("ready", tmp_path) is None


def test_a_killed_worker_is_started_again(model, tmp_path):
    worker.run("ready", tmp_path)
    worker._process.kill()
    worker._process.wait()
    assert worker.run("ready", tmp_path) is None


def test_batches_travel_without_pickle(tmp_path):
    batches = [{"a/b": np.arange(3), "c": np.ones((1, 2))}, {"a/b": np.arange(1), "c": np.ones((1, 2))}]
    save_batches(tmp_path / "b.npz", batches)
    for got, wanted in zip(load_batches(tmp_path / "b.npz"), batches, strict=True):
        assert got.keys() == wanted.keys() and all(np.array_equal(got[k], wanted[k]) for k in got)
