"""Energy from planted traces: the truth lies in a narrow interval, and what is invalid is refused with its reason."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power_traces import Phone, played, written

from android_bench.energy.battery import INT_MIN, Battery, Odpm
from android_bench.energy.power import Energy, Refusal, energy, minutes_needed, read_trace
from android_bench.energy.staircase import step_joules
from android_bench.energy.trace import Trace

CURRENTS = {"uA": -1e6, "uA inverted": 1e6, "mA": -1e3, "mA inverted": 1e3}  # printed number per ampere


def replaced(trace: Trace, where=lambda index, sample: True, **changes) -> Trace:
    """The trace with fields of the battery, or of the sample, changed in some samples."""
    own = {name: value for name, value in changes.items() if name in ("current_raw", "odpm", "mark")}
    fields = {name: value for name, value in changes.items() if name not in own}
    samples = [
        dataclasses.replace(sample, battery=sample.battery and dataclasses.replace(sample.battery, **fields), **own)
        if where(index, sample)
        else sample
        for index, sample in enumerate(trace.samples)
    ]
    return dataclasses.replace(trace, samples=tuple(samples))


@pytest.fixture
def draw():
    return np.random.default_rng(3)


def _planted(source: str, percent_steps: bool, random) -> dict:
    """A phone whose best source is `source`, by chance in everything that isn't to be known."""
    capacity = random.uniform(3e6, 5e6)
    slow = source == "charge_counter" and percent_steps
    step = 0 if source == "current" else capacity / 100 if percent_steps else 1000
    return dict(
        idle_watts=random.uniform(0.3, 1.2), idle_drift=random.uniform(-0.1, 0.1), load_fade=random.choice([0, 0.1]),
        load_seconds=3600 if slow else 600, idle_seconds=1800 if slow else 300, least_gap=3 if slow else 1,
        capacity=capacity, step=step, refresh=random.choice([0, 0, 10, 60]), lag=random.uniform(0, 8),
        odpm=source == "odpm",
    )  # fmt: skip


@pytest.mark.parametrize("watts", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("source", ["odpm", "charge_counter", "current"])
def test_truth_lies_in_the_interval(source, watts):
    """9 x 128 = 1152 traces."""
    random, inside, shares = np.random.default_rng([7, int(watts), len(source)]), [], []
    for current, percent_steps, _ in itertools.product(CURRENTS.values(), (False, True), range(16)):
        phone = Phone(load_watts=watts, current=current, **_planted(source, percent_steps, random))
        trace, joules = played(phone, random)
        found = energy(trace, 100)
        assert isinstance(found, Energy), (found, phone)
        assert found.source == source
        inside.append(found.low <= joules / 100 <= found.high)
        shares.append((found.high - found.low) / 2 / found.joules_per_inference)
        assert found.seconds == pytest.approx(phone.load_seconds) and abs(found.idle_watts - phone.idle_watts) < 0.5
    assert np.mean(inside) >= 0.95
    assert np.median(shares) < {1.0: 0.12, 3.0: 0.06, 6.0: 0.05}[watts]


@pytest.mark.parametrize(
    "source, most, changes",
    [("odpm", 0.03, {"odpm": True}), ("charge_counter", 0.1, {}), ("current", 0.06, {"step": 0})],
)
@pytest.mark.parametrize("seed", range(8))
def test_interval_is_narrow_where_the_source_resolves_well(source, most, changes, seed):
    trace, joules = played(Phone(load_watts=3.0, load_seconds=600, **changes), np.random.default_rng(seed))
    found = energy(trace, 1)
    assert found.source == source and found.low <= joules <= found.high
    assert (found.high - found.low) / 2 <= most * found.joules_per_inference


@pytest.mark.parametrize("unit", CURRENTS)
def test_unit_and_sign_are_found_and_said(draw, unit):
    trace, joules = played(Phone(step=0, current=CURRENTS[unit]), draw)
    found = energy(trace, 10)
    assert abs(10 * found.joules_per_inference / joules - 1) < 0.05
    assert f"must be {unit[:2]} (" in found.rule and ("inverted sign" in found.rule) == ("inverted" in unit)


def test_a_counter_says_its_step(draw):
    found = energy(played(Phone(), draw)[0], 10)
    assert "steps of 1 mAh (14" in found.rule and 13.9 < found.resolution_joules < 14.6


def test_level_needs_a_capacity(draw):
    trace, joules = played(Phone(step=0, current=0, load_seconds=5400, idle_seconds=2700, least_gap=3), draw)
    assert "constant" in energy(trace, 1).reason
    found = energy(trace, 1, capacity_uah=4e6)
    assert found.source == "level" and found.low <= joules <= found.high


def test_meters_on_usb_are_the_sum_of_the_consumers(draw):
    trace, joules = played(Phone(odpm=True), draw)
    found = energy(replaced(trace, plugged=("USB",), status=2), 1)
    assert found.rule.endswith("sum of 1 rails, which need not be all that the phone has, while plugged in")
    assert abs(found.joules_per_inference / (0.6 * joules) - 1) < 0.05
    assert energy(trace, 1).rule == "power meters: battery rail VSYS_PWR_VBATT:Battery"


def _from(begin, end):
    return lambda index, sample: begin <= index < end


REFUSED = {  # reason -> what makes the trace invalid
    "charging at the start: USB powered": lambda trace: replaced(trace, _from(0, 2), plugged=("USB",)),
    "charging in between: status 2": lambda trace: replaced(trace, _from(150, 151), status=2),
    "charging at the end: status 5 (full)": lambda trace: replaced(
        trace, lambda index, sample: sample is trace.samples[-2], status=5
    ),
    "spoofed": lambda trace: replaced(trace, _from(150, 151), updates_stopped=True),
    "nonsense from the battery in": lambda trace: replaced(trace, problems=("a voltage of 13 mV is no battery's",)),
    "no battery reading": lambda trace: Trace(
        tuple(s if s.mark else dataclasses.replace(s, battery=None) for s in trace.samples), 3.0
    ),
    "constant at 3000 mAh": lambda trace: replaced(trace, charge_uah=3_000_000),
    "no meter": lambda trace: replaced(trace, charge_uah=None),
    "current: not supported: the gauge answers 0 or INT_MIN": lambda trace: replaced(
        replaced(trace, charge_uah=None, current_raw=0), _from(0, 100), current_raw=INT_MIN
    ),
    "nonsense: it would mean a full battery of 3.7": lambda trace: replaced(trace, charge_uah=3000, level_percent=80.0),
    "not monotonic: it rose by": lambda trace: replaced(trace, _from(180, 999), charge_uah=3_900_000, level_percent=80),
    "it jumped by": lambda trace: replaced(trace, _from(180, 999), charge_uah=2_000_000),
    "no load marks": lambda trace: replaced(trace, lambda _, sample: sample.mark == "load_end", mark=None),
    "no idle baseline": lambda trace: Trace(
        tuple(s for s in trace.samples if s.uptime_seconds >= trace.marked("load_begin").uptime_seconds), 3.0
    ),
    "suspended: no sample for": lambda trace: Trace(trace.samples[:120] + trace.samples[130:], 3.0),
    "too few samples": lambda trace: Trace(
        tuple(s for s in trace.samples if s.mark or s.uptime_seconds > trace.marked("load_begin").uptime_seconds), 99.0
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_invalid_traces_are_refused_with_the_reason(draw, reason):
    trace, _ = played(Phone(current=0), draw)
    assert isinstance(energy(trace, 1), Energy)
    found = energy(REFUSED[reason](trace), 1)
    assert isinstance(found, Refusal) and reason in found.reason and found.minutes_needed is None


@pytest.mark.parametrize("inferences", [0, -1])
def test_no_inferences(draw, inferences):
    assert "no inferences" in energy(played(Phone(), draw)[0], inferences).reason


def test_current_that_changes_its_sign(draw):
    trace, _ = played(Phone(step=0), draw)
    found = energy(replaced(trace, lambda i, s: i % 3 == 0, current_raw=800_000), 1)
    assert "sign changes" in found.reason


def test_current_of_no_plausible_unit(draw):
    trace, _ = played(Phone(step=0, current=2e4), draw)
    assert "plausible neither in mA nor in uA" in energy(trace, 1).reason


def test_without_load_it_is_not_above_idle(draw):
    trace, _ = played(Phone(load_watts=0.0), draw)
    found = energy(trace, 1)
    assert "charge_counter: not above idle" in found.reason and "current: not above idle" in found.reason


@pytest.mark.parametrize("change", ["gone", "backwards", "rails"])
def test_meters_that_failed(draw, change):
    trace, _ = played(Phone(odpm=True, step=0, current=0), draw)
    changed = {
        "gone": None, "backwards": Odpm(None, {"VSYS_PWR_VBATT:Battery": 5.0}, {}), "rails": Odpm(None, {"A": 5.0}, {})
    }[change]  # fmt: skip
    found = energy(replaced(trace, lambda i, s: s.mark == "load_end", odpm=changed), 1)
    words = {"gone": "not read at all four marks", "backwards": "went backwards", "rails": "expected the same rails"}
    assert words[change] in found.reason


def test_below_five_steps_tells_the_minutes(draw):
    """4 mAh in 16 s: 20 s for five."""
    trace, _ = played(Phone(load_seconds=16, idle_seconds=60, most_gap=1.5, current=0), draw)
    found = energy(trace, 1)
    assert "below resolution: 4 steps of 1 mAh" in found.reason and found.minutes_needed == pytest.approx(20 / 60)
    enough, _ = played(Phone(load_seconds=40, idle_seconds=60, most_gap=1.5, current=0), draw)
    assert isinstance(energy(enough, 1), Energy)


def test_a_current_serves_where_the_counter_is_too_coarse(draw):
    trace, joules = played(Phone(step=40_000), draw)
    found = energy(trace, 1)
    assert found.source == "current" and found.low <= joules <= found.high


def test_steps_and_minutes():
    assert step_joules(1000, 3850) == pytest.approx(13.86)
    assert 60 * minutes_needed(1000, 3850, 3.0, steps=1) == pytest.approx(4.62)
    assert 60 * minutes_needed(1000, 3850, 3.0) == pytest.approx(5 * 4.62)
    assert 5 < minutes_needed(1000, 3850, 3.0, relative_error=0.01) < 10
    assert minutes_needed(40_000, 3850, 3.0, relative_error=0.1) > 30
    with pytest.raises(ValueError, match="above 0"):
        minutes_needed(1000, 3850, 0)


def test_a_trace_is_read_in_order_of_time():
    text = "@@period 2\n@ 9.00 1.0\n@@battery\n  voltage: 3900\n@@current\ndenied\n@ 7.50 1.0\n@@mark begin\n"
    trace = read_trace(text)
    assert [sample.uptime_seconds for sample in trace.samples] == [7.5, 9.0] and trace.period_seconds == 2
    assert trace.marked("begin").battery is None
    assert trace.samples[1].battery == Battery(voltage_mv=3900) and trace.samples[1].current_raw is None


@pytest.mark.parametrize("changes", [{"odpm": True}, {}, {"step": 0}])
def test_written_and_read_it_is_the_same_energy(draw, changes):
    trace, _ = played(Phone(**changes), draw)
    here, there = energy(trace, 9), energy(read_trace(written(trace)), 9)
    assert here.joules_per_inference == pytest.approx(there.joules_per_inference, rel=1e-3)
    assert (here.source, here.rule) == (there.source, there.rule)


SHORT = {
    name: written(played(Phone(idle_seconds=20, load_seconds=40, most_gap=2, **changes), np.random.default_rng(0))[0])
    for name, changes in {"odpm": {"odpm": True}, "counter": {"current": 0}, "current": {"step": 0}}.items()
}


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SHORT)), st.data())
def test_broken_traces_give_an_energy_or_a_refusal(name, data):
    lines = SHORT[name].splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = lines[data.draw(st.integers(0, len(lines) - 1))]
        digits = "".join(data.draw(st.sampled_from("0123456789-")) if c.isdigit() else c for c in lines[at])
        lines[at : at + 1] = data.draw(st.sampled_from([[], [lines[at]] * 2, [other], [digits], [lines[at][:-1]]]))
    found = energy(read_trace("\n".join(lines)), 10, capacity_uah=4e6)
    if isinstance(found, Energy):
        assert 0 < found.low <= found.joules_per_inference <= found.high < float("inf")
    else:
        assert found.reason and (found.minutes_needed is None or 0 < found.minutes_needed < float("inf"))


@pytest.mark.parametrize("text", ["", "noise\n@ x\n", "@ 1.00 2.0\n", "@ 1.0 2.0\n@@mark load_begin\n" * 3])
def test_garbage_is_refused_in_words(text):
    assert isinstance(energy(read_trace(text), 1), Refusal)
