"""Filters removed until a budget is met: counts exact, resumable, and honest about what it saved."""

import keras
import numpy as np
import pytest
from emulated_phone.personalities import PIXEL
from phone_farm import farm
from small_models import compiled, image_data

from android_bench.result import Result
from tfcompress import OneShot, Prune, compress, convert, cut, inspect, payoff, prune_filters, shrink
from tfcompress.budget import _checked
from tfcompress.cut import Cutter
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.choose import floors, label_costs, label_scores, label_times, lowest, pools
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.targets import guessed_loss
from tfcompress.tuning import training

L = keras.layers


def residual_net(width=8):
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(i)))
    y = L.Conv2D(2 * width, 3, padding="same", activation="relu", name="inner")(x)
    x = L.Add()([x, L.Conv2D(width, 3, padding="same", name="outer")(y)])
    return keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))


def test_scores_of_coupled_channels_meet_and_relative_ones_are_compared_by_their_layers_mean():
    model = residual_net(2)
    for name, norms in (("stem", (1, 3)), ("outer", (30, 10)), ("inner", (1, 1, 1, 5))):
        kernel = np.ones(model.get_layer(name).kernel.shape)
        model.get_layer(name).kernel.assign(kernel / np.sqrt(kernel[..., 0].size) * norms)
    channels = Channels(model)
    scores = label_scores(model, channels, "l2_norm")
    stem, inner = (channels.roots(next(r for r in channels.records.values() if r.path == n).made[0])
                   for n in ("stem", "inner"))
    np.testing.assert_allclose(scores[stem], [(1 / 2 + 30 / 20) / 2, (3 / 2 + 10 / 20) / 2])
    np.testing.assert_allclose(scores[inner], [0.5, 0.5, 0.5, 2.5])
    assert np.isinf(scores[FIXED])


def test_the_cost_of_one_channel_is_what_its_removal_saves():
    channels = Channels(residual_net())
    costs, everything = label_costs(channels), np.ones(channels.count, bool)
    inner = channels.roots(next(r for r in channels.records.values() if r.path == "inner").made[0])
    keep = everything.copy()
    keep[inner[3]] = False
    assert costs[inner[3]] == channels.macs(everything) - channels.macs(keep)
    assert label_costs(channels, "bytes")[inner[3]] == 4 * (channels.parameters(everything) - channels.parameters(keep))


def test_the_time_of_one_channel_is_what_a_file_without_half_of_its_layer_saves_over_their_number():
    """With MACs for a clock the answer is known: they fall with the channels of one layer in a straight line."""
    model, timed = residual_net(), []
    channels = Channels(model)

    def clock(small):
        graph = Channels(small)
        timed.append(graph.macs(np.ones(graph.count, bool)))
        return timed[-1]

    scores = np.random.default_rng(0).random(channels.count)
    times = label_times(model, channels, scores, clock)
    free = channels.roots(np.arange(channels.count)) != FIXED
    np.testing.assert_allclose(times[free], label_costs(channels)[free])
    assert [len(own) for own in pools(channels)] == [8, 16] and len(timed) == 3     # the sum ties stem and outer


def test_attention_heads_are_timed_too():
    i = keras.Input((5, 6))
    x = L.Dense(8)(i)
    channels = Channels(keras.Model(i, L.Dense(2)(L.Flatten()(x + L.MultiHeadAttention(3, 4)(x, x)))))
    assert [len(own) for own in pools(channels)] == [8, 3]


def test_as_few_of_the_lowest_as_it_takes_and_never_a_whole_layer():
    channels = Channels(residual_net())
    scores = np.where(np.arange(channels.count) == FIXED, np.inf, np.arange(channels.count))
    scores = scores[channels.roots(np.arange(channels.count))]
    for share in (0.9, 0.5, 0.2):
        keep = lowest(channels, scores, lambda keep, share=share: channels.macs(keep) <= share * 68000,
                      floors(channels))
        gone = np.unique(channels.roots(np.flatnonzero(~keep)))
        one_less = keep | (channels.roots(np.arange(channels.count)) == gone[-1])
        assert channels.macs(keep) <= share * 68000 < channels.macs(one_less)
    most = lowest(channels, scores, lambda keep: False, floors(channels))
    assert all(most[r.made[0]].sum() >= 0.1 * len(r.made[0]) for r in channels.records.values())


@pytest.mark.slow
def test_a_budget_is_met_and_a_stopped_run_goes_on(tmp_path):
    model, data = compiled(residual_net()), image_data(128)
    model.fit(*data, epochs=2, verbose=0)
    seen = []

    def fit(small, number):
        if number == 2 and len(seen) < 2:
            seen.append(number)
            raise KeyboardInterrupt
        seen.append(number)

    options = dict(criterion="taylor", rounds=2, fit=fit, round_to=2, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prune_filters(model, data, 0.5, **options)
    found = prune_filters(model, data, 0.5, **options)
    assert seen == [1, 2, 2]                                 # the first round was not made again
    assert all(isinstance(step, Result) for step in found.steps)
    start, first, last = found.steps
    assert last.macs <= 0.5 * start.macs < first.macs < start.macs
    assert last.macs == Channels(found.model).macs(np.ones(Channels(found.model).count, bool))
    assert found.model.get_layer("inner").filters % 2 == 0 and "real" in last.facts["pays"]
    with pytest.raises(ValueError, match="another configuration"):
        prune_filters(model, data, 0.4, **options)


def test_scores_are_divided_by_measured_time(monkeypatch):
    """With MACs for a clock, or for a budget, those channels go that go where scores are divided by MACs."""
    model = residual_net(16)
    monkeypatch.setattr(Cutter, "timed", lambda cutter, file: inspect(file).macs)
    kept = {}
    for per in ("flops", "latency_us", "budget", None):
        cutter = Cutter(model, None, "random", per, 1, "host")
        small = cutter.cut(model, {"flops": 0.6 * inspect(cutter.file).macs})
        kept[per] = [layer.get_weights() for layer in small.layers]
    for other in ("latency_us", "budget"):
        same = keras.tree.map_structure(np.array_equal, kept["flops"], kept[other])
        assert all(keras.tree.flatten(same)), other
    assert kept["flops"][1][0].shape != kept[None][1][0].shape     # the costs do matter here


@pytest.mark.slow
def test_two_budgets_at_once_are_both_met_and_neither_by_far():
    model = residual_net(24)
    found = prune_filters(model, None, {"flops": 0.5, "bytes": 0.55}, criterion="l2_norm", rounds=1, per="budget",
                          fit=0)
    first, last = found.steps
    assert 0.4 < last.macs / first.macs <= 0.5 and 0.45 < last.raw_bytes / first.raw_bytes <= 0.55


@pytest.mark.slow
def test_bytes_are_those_of_the_file():
    found = prune_filters(residual_net(), None, 0.6, "bytes", criterion="l2_norm", rounds=1, per="bytes")
    assert found.steps[-1].raw_bytes <= 0.6 * found.steps[0].raw_bytes
    assert found.steps[-1].raw_bytes == convert(found.model).size


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy", None])
def test_labels_may_be_numbers_or_one_hot_in_training_too(loss):
    model, (x, y) = keras.Sequential([residual_net(), L.Softmax()]), image_data(16)
    if loss:
        model.compile(loss=loss)
    after = []
    for labels in (y, y[:, None], np.eye(3)[y]):
        small = keras.models.clone_model(model)
        small.set_weights(model.get_weights())
        keras.utils.set_random_seed(0)
        training(1, model, (x, labels))(small, 1)
        after.append(small.get_weights())
    for other in after[1:]:
        for one, two in zip(after[0], other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)


def units(count, activation=None):
    return keras.Sequential([keras.Input((4,)), L.Dense(count, activation)])


@pytest.mark.parametrize("model, y, loss", [
    (units(3), [0, 2], "SparseCategoricalCrossentropy"),
    (units(3, "softmax"), [[1, 0, 0], [0, 0, 1]], "CategoricalCrossentropy"),
    (units(1, "sigmoid"), [0, 1], "BinaryCrossentropy"),
    (units(3, "sigmoid"), [[1, 0, 0], [1, 1, 0]], "BinaryCrossentropy"),
    (units(3), [[0.3, 2.0, 1.0], [0.1, 0.5, 7.0]], None),
    (units(1), [0.3, 2.0], None),
    (units(3), [0, 3], None),
    (units(3), ["cat", "dog"], None),
])
def test_the_loss_is_guessed_or_asked_for(model, y, loss):
    if loss:
        assert type(guessed_loss(model, np.ones((2, 4)), np.array(y))).__name__ == loss
    else:
        with pytest.raises(ValueError, match="can't be guessed. Compile it first, or pass fit="):
            guessed_loss(model, np.ones((2, 4)), np.array(y))


def test_criteria_see_the_loss_of_the_first_model_in_every_round():
    """Else a run that was stopped and resumed, or a ``fit`` that doesn't compile, ranks by cross-entropy."""
    model = residual_net()
    model.compile(loss="mse")
    cutter = Cutter(model, None, "taylor", None, 1, "host")
    for loss in (None, "categorical_crossentropy"):
        small = keras.models.clone_model(model)
        if loss:
            small.compile(loss=loss)
        assert cutter._with_loss(small).loss == "mse" and cutter._with_loss(small).layers[1] is small.layers[1]


def test_times_are_told_in_the_unit_of_the_first_measurement(monkeypatch):
    """A computer that is 30 % slower by then does not miss the budget."""
    model = residual_net()
    cutter = Cutter(model, None, "l2_norm", None, 1, "host")
    cutter.begin(100.0, {})
    later = {name: Result(id=name, recipe="", device="host", latency_p50_us=time)
             for name, time in (("start", 130.0), ("round 1", 65.0))}
    monkeypatch.setattr(cut, "timed", lambda files, device: later)
    row = cutter.row("round 1", model)
    assert row.latency_p50_us == 50.0 and row.facts["pays"] == "real: 2.0x faster"


@pytest.mark.slow
@pytest.mark.parametrize("jump", [0.0, 0.08])
def test_a_time_is_found_also_where_it_jumps_with_the_size(monkeypatch, jump):
    """A clock of a fixed part, MACs, and a jump that comes and goes with the number of channels."""
    def clock(macs):
        return 10 + macs / 1e4 * (1 + jump * (int(macs / 40_000) % 2))

    model = residual_net(32)
    whole = Channels(model).macs(np.ones(Channels(model).count, bool))
    cutter = Cutter(model, None, "l2_norm", None, 1, "host")
    monkeypatch.setattr(cutter, "timed", lambda file: clock(inspect(file).macs))
    cutter.begin(clock(whole), {})
    for share in (0.7, 0.5, 0.3):
        model = cutter.cut(model, {"latency_us": share * clock(whole)})
        assert abs(clock(inspect(convert(model)).macs) / clock(whole) / share - 1) < 0.1
    assert len(cutter.known) < 20


@pytest.mark.slow
def test_where_no_size_takes_the_time_the_next_faster_one_is_taken(monkeypatch):
    """A cliff: of the sizes beside it the slower one is nearer to the goal, and too slow."""
    model = residual_net(32)
    cutter = Cutter(model, None, "l2_norm", None, 1, "host")

    def clock(macs):
        return 100 * macs / cutter.macs * (1.36 if macs > cutter.macs / 2 else 1)

    monkeypatch.setattr(cutter, "timed", lambda file: clock(inspect(file).macs))
    cutter.begin(100.0, {"latency_us": 60.0})
    assert 40 < clock(inspect(convert(cutter.cut(model, {"latency_us": 60.0}))).macs) <= 50


@pytest.mark.slow
def test_the_macs_of_dilated_convolutions_are_met():
    i = keras.Input((16, 16, 3))
    x = L.Conv2D(16, 3, dilation_rate=2, padding="same")(L.Conv2D(32, 3, padding="same")(i))
    model = keras.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    small = Cutter(model, None, "l2_norm", None, 1, "host").cut(model, {"flops": 400_000})
    assert 300_000 < inspect(convert(small)).macs <= 400_000 and inspect(convert(model)).macs == 1_400_880


@pytest.mark.parametrize("options, words", [
    (dict(metric="params"), "Unknown metric 'params'. Known: ..flops"),
    (dict(criterion="l2"), "Unknown criterion 'l2'"),
    (dict(per="ms"), "Unknown per .ms.. Known: .None, .auto., .budget., .flops., .bytes., .latency_us"),
    (dict(rounds=0), "rounds=0"),
    (dict(round_to=0), "round_to=0"),
    (dict(target=-1), "Received: {'flops': -1}"),
    (dict(target=1), "a share of the model's own amount, above 0 and below 1, .* Received: {'flops': 1}"),
    (dict(target={"flops": 0.5, "latency_us": 0.5}), "of flops, of bytes, of both, or of latency_us"),
    (dict(target="0.5"), "Received: {'flops': '0.5'}"),
    (dict(data=[1, 2, 3]), "samples and labels"),
    (dict(data=(np.ones((3, 8, 8, 3)), np.ones(2))), r"as many samples as labels. Received: \[2, 3\]"),
    (dict(data=(np.ones((3, 8, 3, 3)), np.ones(3))),
     r"takes samples of shape .8, 8, 3.. Received: x of shape .3, 8, 3, 3"),
    (dict(data=(np.full((3, 8, 8, 3), np.nan), np.ones(3))), "not finite"),
    (dict(data=(np.ones((3, 8, 8, 3)), np.array(["cat", "dog", "cat"]))), "y holds numbers. Received: .*cat"),
])
def test_bad_input_is_told_before_anything_is_done(options, words, tmp_path):
    given = dict(data=None, target=0.5) | options
    with pytest.raises(ValueError, match=words):
        prune_filters(residual_net(), folder=tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_labels_that_the_loss_does_not_know_are_told():
    model = residual_net()
    model.compile(loss="sparse_categorical_crossentropy")
    for y, words in ((np.array([0, 99]), "Received: 0 to 99"), (np.array([0.5, 1.0]), "Received: 0.5 to 1")):
        with pytest.raises(ValueError, match=words):
            prune_filters(model, (np.ones((2, 8, 8, 3)), y), 0.5)


def test_a_class_that_the_loss_ignores_is_a_label():
    model = residual_net()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255))
    y = np.array([0, 255, 1, 2])
    assert _checked(model, (np.ones((4, 8, 8, 3)), y))[1] is y
    with pytest.raises(ValueError, match="Received: 0 to 254"):
        _checked(model, (np.ones((2, 8, 8, 3)), np.array([0, 254])))


def test_samples_without_a_last_axis_of_one_get_it():
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Flatten(), L.Dense(2)])
    assert _checked(model, (np.ones((3, 4, 4)), None))[0].shape == (3, 4, 4, 1)
    with pytest.raises(ValueError, match=r"Received: x of shape \(3, 4, 5\)"):
        _checked(model, (np.ones((3, 4, 5)), None))


def test_a_compressed_model_has_to_be_stripped_first():
    model = compress(residual_net(), Prune(OneShot(0.5), granularity="filter"))
    for call in (shrink, lambda model: prune_filters(model, None, 0.5, criterion="l2_norm")):
        with pytest.raises(ValueError, match=r"still trains compressed layers: .* Call strip\(model\) first"):
            call(model)


@pytest.mark.slow
def test_a_tenth_of_the_first_model_stays_over_all_rounds():
    """Scores that say the same, divided by MACs: the wide layer's filters go first. One of 40 was left."""
    i = keras.Input((16, 16, 3))
    a, b = L.Conv2D(40, 3, padding="same", name="wide")(i), L.Conv2D(100, 1, name="cheap")(i)
    model = keras.Model(i, L.Dense(3)(L.Concatenate()([L.GlobalMaxPooling2D()(a), L.GlobalMaxPooling2D()(b)])))
    done = prune_filters(model, None, 0.2, criterion="random", rounds=4, per="flops")
    assert done.model.get_layer("wide").filters == 4 and done.steps[-1].macs <= 0.2 * done.steps[0].macs


def gated(i):
    a, b = keras.ops.split(L.Conv2D(8, 3)(i), 2, -1)
    return L.Activation("relu")(a * keras.ops.sigmoid(b))


@pytest.mark.slow
@pytest.mark.parametrize("body, target, rounds", [
    (gated, 0.3, 4),
    (lambda i: L.Conv2D(12, 3, groups=4)(L.Conv2D(8, 3)(i)), 0.23, 5),
    (lambda i: L.Maximum()([L.Conv2D(8, 3)(i), L.Conv2D(8, 3)(i)]), 0.13, 6),
])
def test_layers_that_are_followed_otherwise_once_they_have_one_channel_or_group(body, target, rounds):
    i = keras.Input((12, 12, 3))
    model = keras.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(7, 1)(body(i)))))
    done = prune_filters(model, None, target, criterion="l2_norm", rounds=rounds, fit=0)
    assert done.steps[-1].macs <= target * done.steps[0].macs


@pytest.mark.slow
def test_a_target_out_of_reach_is_said():
    with pytest.raises(ValueError, match="nothing to save"):
        prune_filters(residual_net(), None, 10**9, criterion="l2_norm")
    with pytest.raises(ValueError, match="can't be met: .* are left with a tenth of each layer"):
        prune_filters(residual_net(), None, 0.001, criterion="l2_norm", rounds=1)


def test_zeros_that_save_nothing_are_called_theoretical():
    """Nine tenths zeros: same bytes; the file of a quarter of the filters is really smaller.

    All turns: on a busy computer one alone may call equal files "1.1x faster".
    """
    model, small = residual_net(32), residual_net(8)
    for layer in model.layers:
        if isinstance(layer, L.Conv2D):
            layer.kernel.assign(layer.kernel * (np.random.default_rng(0).random(layer.kernel.shape) < 0.1))
    dense = convert(residual_net(32))
    first, zeros, removed = payoff({"dense": dense, "zeros": convert(model), "removed": convert(small)})
    assert abs(zeros.raw_bytes - first.raw_bytes) < 100 and zeros.gzip_bytes < 0.5 * first.gzip_bytes
    assert zeros.facts["pays"].startswith("theoretical: unstructured zeros: same bytes")
    assert removed.facts["pays"].startswith("real: ")
    with pytest.raises(ValueError, match="at least one .tflite file"):
        payoff({})


@pytest.mark.slow
def test_the_time_may_be_that_of_a_phone(tmp_path, monkeypatch):
    """An emulated one here, behind the real adb: its rows say so, and its time is never called faster."""
    with farm(tmp_path, PIXEL) as phones:
        serial = phones.phones[0].address
        monkeypatch.setenv("ANDROID_BENCH_BINARY", phones.binaries[0])
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(phones.server.port))
        files = {"wide": convert(residual_net(32)), "narrow": convert(residual_net(8))}
        wide, narrow = payoff(files, device=serial)
        with pytest.raises(RuntimeError, match="nowhere could not be measured"):
            payoff(files, device="nowhere")
    assert wide.device_kind == narrow.device_kind == "emulated" and narrow.latency_p50_us > 0
    assert narrow.facts["pays"].startswith("real: ") and "faster" not in narrow.facts["pays"]
