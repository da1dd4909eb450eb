"""Bits by layer: the programme is exact, files hold what was promised, budgets are held or refused by name."""

import itertools
import re

import keras
import numpy as np
import pytest
from small_models import normal

from tfcompress import TFLiteModel, cli, convert, evaluate, flatbuffer, search
from tfcompress.conversion import source
from tfcompress.conversion.mixer import LADDER, Mixer
from tfcompress.conversion.pipeline import Pipeline
from tfcompress.datasets import load
from tfcompress.mixed import BudgetError, mixed_precision
from tfcompress.programme import choose

L = keras.layers


def brute_force(damages, costs, limits):
    """The least damage over every assignment within the limits; None where there is none."""
    items, options = damages.shape
    sums = [damages[range(items), picked].sum() for picked in itertools.product(range(options), repeat=items)
            if all(cost[range(items), picked].sum() <= limit for cost, limit in zip(costs, limits, strict=True))]
    return min(sums) if sums and np.isfinite(min(sums)) else None


def test_the_programme_gives_what_brute_force_over_all_assignments_gives():
    random, infeasible = np.random.default_rng(0), 0
    for _ in range(200):
        items, options, budgets = random.integers(1, 6), random.integers(1, 5), random.integers(1, 3)
        damages = 10.0 ** random.uniform(-9, 1, (items, options))
        damages[random.random((items, options)) < 0.15] = np.inf
        damages[:, 0] = np.where(np.isfinite(damages).any(axis=1), damages[:, 0], 1.0)
        costs = random.integers(0, 100_000, (budgets, items, options)).astype(float)
        limits = costs.max(axis=2).sum(axis=1) * random.uniform(0.1, 1.0, budgets)
        chosen, best = choose(damages, costs, limits), brute_force(damages, costs, limits)
        if best is None:
            assert chosen is None
            infeasible += 1
            continue
        at = np.arange(items), chosen
        assert all(cost[at].sum() <= limit for cost, limit in zip(costs, limits, strict=True))
        np.testing.assert_allclose(damages[at].sum(), best, rtol=1e-6)
    assert 20 < infeasible < 180


def test_a_budget_is_held_to_the_last_byte_and_met_exactly_where_that_is_best():
    damages, costs = [[0.0, 1.0], [0.0, 1.0]], [[[1_000_000, 1], [1_000_000, 2]]]
    assert choose(damages, costs, [1_000_002]).tolist() == [0, 1]
    assert choose(damages, costs, [1_000_001]).tolist() == [1, 0]
    assert choose(damages, costs, [3]).tolist() == [1, 1] and choose(damages, costs, [2]) is None


@pytest.mark.parametrize("damages, costs, words", [
    ([[np.nan]], [[[1.0]]], "every item has an option"), ([[np.inf]], [[[1.0]]], "every item has an option"),
    ([[-1.0]], [[[1.0]]], ">= 0"), ([[1.0]], [[[np.inf]]], "finite costs"), ([[1.0]], [[1.0]], "costs .budgets"),
])
def test_what_is_no_problem_is_refused(damages, costs, words):
    with pytest.raises(ValueError, match=words):
        choose(damages, costs, [1.0])


def mixer(model, x, folder, static):
    pipeline = Pipeline(source.read(model), folder)
    pipeline.bind(x)
    return Mixer(pipeline, static, LADDER)


def test_every_precision_stands_beside_every_other_on_both_run_times(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, activation="relu"), L.DepthwiseConv2D(3),
                              L.Flatten(), L.Dense(16, activation="relu"), L.Dense(3)])
    x = normal(8, 8, 3)
    made = mixer(model, x, tmp_path, static=True)
    assert [layer["op"] for layer in made.layers] == ["CONV_2D", "DEPTHWISE_CONV_2D", *["FULLY_CONNECTED"] * 2]
    assert set(made.offered[0]) == set(LADDER) - {"int2"} and set(made.offered[1]) == set(LADDER) - {"int2", "int4"}
    assert set(made.offered[2]) == set(LADDER) and "wrong results" in made.refused["CONV_2D", "int2"]
    for chosen, least_db in (("int8", "int16x8", "int4", "int16x8"), 15), (("int16x8", "float16", "int2", "int8"), 3):
        file = TFLiteModel.load(made.write(chosen, tmp_path / "mixed.tflite"))
        assert len(made.pipeline.check(tmp_path / "mixed.tflite", "mixed", []).ran) == 4
        expected = model(x).numpy()
        assert 10 * np.log10(np.square(expected).sum() / np.square(file.predict(x) - expected).sum()) > least_db
        stored = [tensor.dtype for tensor in flatbuffer.read(file).graphs[0].tensors
                  if tensor.data is not None and len(tensor.shape) > 1]
        assert sorted(stored) == sorted("int8" if name == "int16x8" else name for name in chosen)


def test_two_bits_clip_where_that_harms_less_and_a_table_that_nothing_quantizes_stays_float(tmp_path):
    """Weights of -1, 0, 1 and a rare 4: without clipping, steps of 4 leave zeros alone."""
    kernel = np.random.default_rng(0).integers(-1, 2, (64, 8)).astype("float32")
    kernel[0] = 4.0
    model = keras.Sequential([keras.Input((8,), dtype="int32"), L.Embedding(40, 8), L.Flatten(), L.Dense(8)])
    model.layers[-1].kernel.assign(kernel)
    made = mixer(model, np.random.default_rng(1).integers(0, 40, (128, 8)).astype("int32"), tmp_path, static=False)
    assert [layer["op"] for layer in made.layers] == ["GATHER", "FULLY_CONNECTED"] and made.offered[0] == ("float32",)
    damages = [damage for damage, _ in made.alone(1)]
    assert made.layers[1]["clipped"][0] == "int2" and np.all(np.diff(damages) <= 0) and made.alone(0)[0][0] == 0
    content = made.write(["float32", "int2"], tmp_path / "two.tflite").read_bytes()
    stored = next(tensor for tensor in flatbuffer.read(content).graphs[0].tensors if tensor.dtype == "int2")
    assert np.count_nonzero(stored.data[:, 1:]) > 0.5 * np.count_nonzero(kernel[1:])


def spiky():
    """Two dense layers that compute alike; the weights of one lie beside one of 100 that meets a zero only."""
    random = np.random.default_rng(0)
    i = keras.Input((64,), name="x")
    x = L.Dense(64, activation="relu", name="plain")(i)
    model = keras.Model(i, L.Dense(4, name="scores")(L.Dense(64, activation="relu", name="spiky")(x)))
    kernels = [random.normal(size=(64, 64)).astype("float32") / 8 for _ in range(2)]
    kernels[0][:, 0] = kernels[1][:, 0] = 0.0
    kernels[1][0] = 100.0
    kernels.append(random.normal(size=(64, 4)).astype("float32") / 8)
    for name, kernel in zip(("plain", "spiky", "scores"), kernels, strict=True):
        model.get_layer(name).kernel.assign(kernel)
    x = random.normal(size=(300, 64)).astype("float32")
    return model, (x, model(x).numpy().argmax(1))


def test_a_file_of_one_precision_clips_as_the_search_found_best():
    """The only assignment is the base, whose file is made before it is known which layers are clipped."""
    model, data = spiky()
    kernel = np.random.default_rng(0).integers(-1, 2, (64, 64)) / 8.0
    kernel[0] = 1.5
    model.get_layer("plain").kernel.assign(kernel)
    alone = mixed_precision(model, data, 0.9, max_drop=100.0, precisions=("int4",))
    forced = mixed_precision(model, data, alone.file.size, max_drop=100.0, precisions=("int4", "int8"))
    assert [layer.precision for layer in forced.layers] == 3 * ["int4"]
    assert alone.file.content == forced.file.content


def test_a_layer_of_outliers_keeps_the_bits_that_others_give_up():
    model, data = spiky()
    found = mixed_precision(model, data, 0.65, max_drop=10.0, precisions=("int4", "int8", "float32"))
    plain, outliers, scores = found.layers
    assert plain.precision == "int4" and outliers.precision == "float32" and found.met
    assert found.file.size <= found.budgets["bytes"][0] and outliers.snr_db_alone == np.inf > plain.snr_db_alone > 15
    with pytest.raises(BudgetError, match=r"^max_drop of 10.00 points can't be met within bytes .*nearest") as raised:
        mixed_precision(model, data, 0.3, max_drop=10.0, precisions=("int4", "int8", "float32"))
    assert raised.value.budgets == ("max_drop",) and raised.value.nearest.drop > 10
    assert raised.value.nearest.file.size <= raised.value.nearest.budgets["bytes"][0]


@pytest.fixture(scope="module")
def digits():
    keras.utils.set_random_seed(3)
    splits = load("digits")
    net = keras.Sequential([keras.Input((28, 28, 1), name="image"), L.Conv2D(8, 3, 2, activation="relu"),
                            L.Conv2D(16, 3, 2, activation="relu"), L.Flatten(), L.Dense(32, activation="relu"),
                            L.Dense(10, "softmax")])  # fmt: skip
    net.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    net.fit(splits.x_train[:1500], splits.y_train[:1500], epochs=3, batch_size=50, verbose=0)
    return net, (splits.x_val, splits.y_val), splits.x_train[:100]


@pytest.mark.slow
@pytest.mark.parametrize("static", [False, True])
def test_a_trained_net_holds_bytes_and_accuracy_and_says_what_each_layer_got(digits, static):
    net, data, calibration = digits
    found = mixed_precision(net, data, 0.2, max_drop=1.0, calibration=calibration if static else None)
    assert found.met and found.file.size <= 0.2 * convert(net).size and found.drop <= 1.0
    assert found.accuracy == evaluate(found.file, *data).accuracy and len(found.file.gate.ran) == 4
    text = str(found)
    assert [layer.weights for layer in found.layers] == [72, 1152, 18432, 320]
    for layer in found.layers:
        assert layer.bits * layer.weights == 8 * layer.bytes and layer.snr_db_alone > 5 and layer.snr_db > 5
        assert re.search(rf"{re.escape(layer.name)} +{layer.op} +{layer.precision} +{layer.bits}", text)
    assert "met" in text and "NOT MET" not in text


@pytest.mark.slow
def test_impossible_budgets_are_refused_by_name_with_the_nearest_file(digits):
    net, data, _ = digits
    low = "int2", "int4", "int8"
    with pytest.raises(BudgetError, match=r"^bytes of 4,000 can't be met: the nearest") as raised:
        mixed_precision(net, data, 4000, precisions=low)
    nearest = raised.value.nearest
    assert raised.value.budgets == ("bytes",) and nearest.file.size > 4000 and not nearest.met
    assert [layer.precision for layer in nearest.layers][1:3] == ["int4", "int2"]
    with pytest.raises(BudgetError, match="max_drop of 0.00 points can't be met within bytes") as raised:
        mixed_precision(net, data, nearest.file.size, max_drop=0.0, precisions=low)
    assert raised.value.budgets == ("max_drop",) and 0 < raised.value.nearest.drop


@pytest.mark.slow
def test_a_budget_of_time_is_measured_on_the_file_and_held(digits, monkeypatch):
    """With bytes for a clock the answer is known: a microsecond a hundred bytes."""
    net, data, _ = digits
    monkeypatch.setattr(search, "timed", lambda files, device: {
        name: type("Row", (), {"latency_p50_us": len(content) / 100}) for name, content in files.items()})
    found = mixed_precision(net, data, 0.2, "latency_us", precisions=("int4", "int8"))
    asked, reached = found.budgets["latency_us"]
    assert asked == pytest.approx(0.2 * convert(net).size / 100) and reached == found.file.size / 100 <= asked
    with pytest.raises(BudgetError, match="^latency_us of 10.0 us can't be met"):
        mixed_precision(net, data, 10.0, "latency_us", precisions=("int8",))


@pytest.mark.parametrize("options, words", [
    (dict(data=np.ones(3)), "`data` is .x, y."), (dict(target={"flops": 0.5}), "A budget is of .'bytes', 'latency"),
    (dict(target=1), "A target is a share"), (dict(target=0.0), "A target is"), (dict(target={}), "A budget is"),
    (dict(target="0.5"), "A target is a share"), (dict(max_drop=-1), "max_drop=-1"),
    (dict(precisions=("int3",)), r"Unknown precisions \['int3'\]. Known: \['int2'"),
    (dict(precisions=()), "one or more"), (dict(precisions=("int16x8",)), "int16x8 needs `calibration`"),
])
def test_arguments_that_make_no_sense_are_refused_before_any_work(options, words):
    with pytest.raises(ValueError, match=words):
        mixed_precision(None, **dict(dict(data=(np.ones((3, 2)), [0, 1, 1]), target=0.5), **options))


def test_the_command_writes_the_file(tmp_path, capsys):
    model, (x, y) = spiky()
    model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    net, npz, output = (str(tmp_path / name) for name in ("net.keras", "data.npz", "s.tflite"))
    argv = ["mixed", net, "--data", npz, "-o", output]
    assert cli.main([*argv, "--bytes", "24000", "--max-drop", "5", "--precisions", "int8,float32"]) == 0
    assert (tmp_path / "s.tflite").stat().st_size <= 24000 and "FULLY_CONNECTED" in capsys.readouterr().out
    assert cli.main(argv) == 2 and "--bytes or --latency_us is needed" in capsys.readouterr().err
