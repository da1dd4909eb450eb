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
from tfcompress.search import Search, Tried

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


class Planted(Search):
    """Three layers of 4 or 8 bits, 4 or 8 bytes. Damages lie: with layer 1 in 4 bits, three points are lost."""

    def __init__(self, extra=0):
        self.mixer, self.extra, self._known, self.ranges = self, extra, {}, None

    def _tables(self, names):
        damages = np.full((3, len(LADDER)), np.inf)
        damages[:, 1], damages[:, 2] = (3.0, 1.0, 2.0), 0.0
        costs = np.zeros((1, 3, len(LADDER)))
        costs[0, :, 1] = -4.0
        return damages, costs, {"bytes": 24}

    def _measured(self, chosen, goals):
        picked = tuple(LADDER[level] for level in chosen)
        size, = self.sizes([picked])
        drop = 3.0 if picked[1] == "int4" else 0.5 if "int4" in picked else 0.0
        self._known[picked] = Tried(picked, 1 - drop / 100, {"bytes": size, "max_drop": drop})
        return self._known[picked]

    def sizes(self, assignments):
        return [sum(4 if name == "int4" else 8 for name in picked) + (self.extra if picked.count("int4") == 1 else 0)
                for picked in assignments]

    def judge(self, assignments):
        return [0.1 if picked[1] == "int8" else 1.0 for picked in assignments]


def test_the_layer_that_costs_the_accuracy_falls_back_and_another_one_pays():
    search = Planted()
    found, missed = search.run({"bytes": 20.0, "max_drop": 1.0})
    assert found.chosen == ("int8", "int8", "int4") and missed == ()
    assert ("int8", "int4", "int8") in search._known                   # the damages' own choice, tried first


def test_a_file_larger_than_its_layers_say_leaves_the_programme_less():
    search = Planted(extra=2)
    found, missed = search.run({"bytes": 21.0, "max_drop": 3.0})
    assert found.amounts["bytes"] == 16 and missed == () and len(search._known) > 2


def test_what_cant_be_met_is_named():
    found, missed = Planted().run({"bytes": 11.0, "max_drop": 9.0})
    assert missed == ("bytes",) and found.amounts["bytes"] == 12
    found, missed = Planted().run({"bytes": 15.0, "max_drop": 1.0})
    assert missed == ("max_drop",) and found.amounts == {"bytes": 12, "max_drop": 3.0}


def test_the_least_file_is_sought_among_real_ones_where_layers_share_what_stands_between_them():
    """Two layers alike need nothing between them: with 5 bytes for a border, brute force over all files is matched."""
    def size(picked):
        own = sum((1, 3, 4)[LADDER.index(name)] for name in picked[:2]) + (4, 3, 0)[LADDER.index(picked[2])]
        return own + 5 * sum(a != b for a, b in itertools.pairwise(picked))

    made = Planted()
    made.sizes = lambda assignments: [size(picked) for picked in assignments]
    cost = np.full((3, len(LADDER)), np.inf)
    cost[:, :3] = (1, 3, 4), (1, 3, 4), (4, 3, 0)
    found = made._lowered("bytes", cost.argmin(axis=1).tolist(), cost, {"bytes": 0})
    assert size([LADDER[level] for level in found]) == min(map(size, itertools.product(LADDER[:3], repeat=3))) == 6
    assert size([LADDER[level] for level in cost.argmin(axis=1)]) == 7


class Clocked(Planted):
    """Files take what ``clock`` says; times of single layers lie: they call int4 the fastest everywhere."""

    def __init__(self, clock, drop=lambda picked: 0.0):
        super().__init__()
        self.clock, self.drop = clock, drop

    def _tables(self, names):
        damages = np.full((3, len(LADDER)), np.inf)
        damages[:, 1:3], damages[:, 5] = (3.0, 1.0), 0.0
        costs = np.zeros((1, 3, len(LADDER)))
        costs[0, :, 1], costs[0, :, 5] = -5.0, 1.0
        return damages, costs, {"latency_us": 30.0}

    def file(self, picked):
        return tuple(picked)

    def _times(self, files):
        return {name: self.clock(picked) for name, picked in files.items()}

    def _measured(self, chosen, goals):
        picked = tuple(LADDER[level] for level in chosen)
        self._known[picked] = Tried(picked, 0.9, {"latency_us": self.clock(picked), "max_drop": self.drop(picked)})
        return self._known[picked]


@pytest.mark.parametrize("clock, held", [
    (lambda picked: 20.0 + 20 * (set(picked) != {"int8"}), 20.0),       # only the file of one precision is fast
    (lambda picked: 40.0 - 8 * picked.count("int8") + 12 * (picked[0] == "int8"), 24.0),  # first float, then int8
    (lambda picked: 24.9 + 0.2 * (picked != ("int8", "int4", "int4")), 24.9),             # by less than a clock's noise
    (lambda picked: 30.0 + picked.count("int4") - (0, 1, 2, -1)[picked.count("float32")], None),  # 28 is the least
])
def test_wrong_times_of_layers_lead_to_no_refusal_that_real_files_gainsay(clock, held):
    """Brute force says what can be held; the programme, by the layers, would have taken int4 three times."""
    precisions = "int4", "int8", "float32"
    found, missed = Clocked(clock).run({"latency_us": 25.0, "max_drop": 1.0})
    assert found.amounts["latency_us"] == min(map(clock, itertools.product(precisions, repeat=3))) == (held or 28.0)
    assert missed == (() if held else ("latency_us",))


def test_what_the_sums_call_impossible_is_tried_where_a_real_file_holds_it():
    """Sums say 15 us at least. Files of int8 take 8 and lose three points; one layer in float32 repairs it, for 1.5."""
    found, missed = Clocked(
        lambda picked: 8.0 + 20.0 * picked.count("int4") + 1.5 * picked.count("float32"),
        lambda picked: 0.5 if "float32" in picked else 3.0,
    ).run({"latency_us": 10.0, "max_drop": 1.0})
    assert sorted(found.chosen) == ["float32", "int8", "int8"] and missed == ()


def test_a_file_found_for_the_bytes_counts_for_the_time():
    """Only one mix holds the time, and the search for bytes has come by it."""
    made = Clocked(lambda picked: 20.0 + 20 * (picked != ("int8", "int4", "int4")))
    made._measured([2, 1, 1], {})
    found, missed = made.run({"latency_us": 25.0, "max_drop": 1.0})
    assert found.chosen == ("int8", "int4", "int4") and missed == ()


def test_a_file_that_does_not_run_is_no_candidate_for_the_fastest(monkeypatch):
    def clock(picked):
        if "int4" in picked:
            raise RuntimeError("LiteRT died")
        return 20.0

    made = Clocked(clock)
    assert made._taken("latency_us", [[1, 2, 2], [2, 2, 2]]) == [np.inf, 20.0]
    monkeypatch.setattr(made, "_times", lambda files: exec('raise RuntimeError("no phone")'))
    with pytest.raises(RuntimeError, match="no phone"):
        made._taken("latency_us", [[1, 2, 2], [2, 2, 2]])


def test_what_would_be_taken_is_timed_twice_and_the_slower_time_counts(monkeypatch):
    made, times = Search.__new__(Search), iter([80.0, 120.0, 130.0])
    made.mixer = type("Mixer", (), {"check_runs": staticmethod(lambda path: None)})
    made.file, made._last, made._known, made.float_file = lambda picked: b"12345678", (None, None), {}, b""
    made.data, made.accuracy, made._float_us, made.device = (None, None), 0.9, 50.0, "host"
    monkeypatch.setattr(search, "evaluate", lambda content, x, y: type("Row", (), {"accuracy": 0.9}))
    monkeypatch.setattr(search, "timed", lambda files, device: {
        "float": type("Row", (), {"latency_p50_us": 100.0}), "mixed": type("Row", (), {"latency_p50_us": next(times)})})
    goals = {"latency_us": 50.0, "max_drop": 1.0}
    assert made._measured([1, 2], goals).amounts == {"bytes": 8, "latency_us": 60.0, "max_drop": 0.0}
    assert made._measured([2, 2], goals).amounts["latency_us"] == 65.0 and next(times, None) is None


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
