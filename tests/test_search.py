"""The search for bits by layer against brute force, where sums of layers lie: budgets held, or refused by name."""

import itertools

import numpy as np
import pytest

from tfcompress import search
from tfcompress.conversion.mixer import LADDER
from tfcompress.search import Search, Tried


class Planted(Search):
    """Three layers of 4 or 8 bits, 4 or 8 bytes. Damages lie: with layer 1 in 4 bits, three points are lost."""

    def __init__(self, extra=0):
        self.mixer, self.extra, self._known = self, extra, {}

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
    found = made._lowered(("bytes",), cost.argmin(axis=1).tolist(), np.isfinite(cost), {"bytes": 1})
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
    assert made._shares(("latency_us",), [[1, 2, 2], [2, 2, 2]], {"latency_us": 40.0}).tolist() == [np.inf, 0.5]
    monkeypatch.setattr(made, "_times", lambda files: exec('raise RuntimeError("no phone")'))
    with pytest.raises(RuntimeError, match="no phone"):
        made._shares(("latency_us",), [[1, 2, 2], [2, 2, 2]], {"latency_us": 40.0})


def test_a_precision_that_the_device_does_not_run_is_not_offered():
    """The host ran int4 in layer 0; the device, where times are measured, ends with it."""
    def clock(files):
        if any(picked[0] == "int4" for picked in files.values()):
            raise RuntimeError("the phone's kernel died")
        return {name: 30.0 - 5 * picked.count("int4") for name, picked in files.items()}

    made = Clocked(None)
    made._times, made.base, made.layers, made.offered = clock, ["int8"] * 2, [{}] * 2, [("int4", "int8")] * 2
    made.alone, made._amounts = lambda at: [(1.0, 4), (0.0, 8)], lambda picked, names: {"latency_us": 30.0}
    made.changed = lambda at, name: [name if k == at else "int8" for k in range(2)]
    damages, costs, _ = Search._tables(made, ["latency_us"])
    assert damages[:, 1:3].tolist() == [[np.inf, 0.0], [1.0, 0.0]] and costs[0, 1, 1:3].tolist() == [-5.0, 0.0]


class Both(Clocked):
    """Bytes, too; the times of single layers are too long, so that sums call the two budgets impossible."""

    def _tables(self, names):
        damages, costs, base = super()._tables(names)
        return damages, np.concatenate([np.zeros_like(costs), costs + 9.0]), base | {"bytes": 24}

    def _measured(self, chosen, goals):
        tried = super()._measured(chosen, goals)
        tried.amounts["bytes"], = self.sizes([tried.chosen])
        return tried


def test_two_budgets_that_only_a_mix_holds_are_both_held():
    """int4 everywhere is small and slow, int8 fast and large; with int4 in layer 1 a file is slower by 9."""
    found, missed = Both(lambda picked: 20.0 + 4 * picked.count("int4") + 9 * (picked[1] == "int4")).run(
        {"bytes": 16.0, "latency_us": 30.0, "max_drop": 1.0})
    assert found.chosen == ("int4", "int8", "int4") and missed == ()
    found, missed = Both(lambda picked: 20.0 + 8 * picked.count("int4")).run(
        {"bytes": 16.0, "latency_us": 30.0, "max_drop": 1.0})
    assert missed == ("bytes", "latency_us")


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
