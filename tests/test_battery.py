"""Every saved output gives the values that a person reads in it; anything else gives BatteryError or nothing."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_bench.energy.battery import (
    Battery,
    BatteryError,
    BatteryStats,
    parse_battery,
    parse_batterystats,
    parse_health,
    parse_odpm,
    parse_power_supply,
)
from android_bench.energy.trace import read_trace

PHONES = Path(__file__).parent / "golden" / "phones"
PARSERS = (parse_battery, parse_health, parse_power_supply, parse_odpm, parse_batterystats, read_trace)


@pytest.mark.parametrize(
    "name, parse, wanted",
    [
        (
            "battery_aosp_usb_full", parse_battery,
            Battery(level_percent=100, charge_uah=3270000, status=5, plugged=("USB",), voltage_mv=4352, celsius=27.4,
                    present=True),
        ),
        (
            "battery_honor_a14_discharging", parse_battery,
            Battery(level_percent=54, charge_uah=2848000, status=3, voltage_mv=3906, celsius=22.0, present=True),
        ),
        (
            "battery_samsung_a10", parse_battery,
            Battery(level_percent=84, charge_uah=2532000, status=2, plugged=("USB",), voltage_mv=4110, celsius=33.6,
                    current_raw=347, present=True),
        ),
        (
            "battery_samsung_eventlog_tail", parse_battery,
            Battery(level_percent=72, charge_uah=3081000, status=3, voltage_mv=4120, celsius=28.9, current_raw=-412,
                    present=True),
        ),
        (
            "battery_tv_box_bogus", parse_battery,
            Battery(level_percent=100, charge_uah=1000, status=2, plugged=("AC",), voltage_mv=13, celsius=2.6,
                    present=False, problems=("a voltage of 13 mV is no battery's",
                                             "the phone says that no battery is present")),
        ),
        (
            "battery_updates_stopped", parse_battery,
            Battery(level_percent=71, charge_uah=2100000, status=2, voltage_mv=4021, celsius=30.1, present=True,
                    updates_stopped=True),
        ),
        (
            "health_hal_dump", parse_health,
            Battery(level_percent=84, charge_uah=2532000, status=3, voltage_mv=4110, celsius=33.6, present=True,
                    current_raw=-412300, current_average_raw=-398120, full_charge_uah=3014000, cycles=132),
        ),
        (
            "power_supply_uevent", parse_power_supply,
            Battery(level_percent=75, charge_uah=2085000, status=3, voltage_mv=3981.25, celsius=31.2, present=True,
                    current_raw=-1469687, current_average_raw=-912500, full_charge_uah=2780000, cycles=132),
        ),
        (
            "batterystats_checkin", parse_batterystats,
            BatteryStats(3900, 3243, (3237, 3354), {0: 300, 2000: 12.5}, {2000: (123456, 7890)}, "model"),
        ),
        (
            "batterystats_human", parse_batterystats,
            BatteryStats(3500, 1987, (3150, 3185), {0: 83.1, 2000: 12.5, 1000: 9.93}, {}, "model"),
        ),
    ],
)  # fmt: skip
def test_saved_outputs(name, parse, wanted):
    assert parse((PHONES / f"{name}.txt").read_text()) == wanted


def test_saved_power_meters():
    meters = parse_odpm((PHONES / "odpm_hal2_delta.txt").read_text())
    assert meters.elapsed_ms == 10023 and len(meters.rails) == len(meters.deltas_mws) == 7
    assert meters.rails["VSYS_PWR_VBATT:Battery"] == 5566778.0 and meters.deltas_mws["VSYS_PWR_VBATT:Battery"] == 19022
    assert meters.rails["S2M_VDD_CPU2:CPU(BIG)"] == 987654.31
    assert not any("TPU" in name and value == 123.45 for name, value in meters.rails.items())  # the consumers' table


def test_meters_without_delta_column_and_without_the_newline():
    text = "=== PowerStats HAL 2.0 energy meter ===\nElapsed time: 12 ms   Channel  Energy\n [A]:B C  7.50 mWs\n"
    meters = parse_odpm(text)
    assert (meters.elapsed_ms, meters.rails, meters.deltas_mws) == (12, {"A:B C": 7.5}, {})


def test_hal_1_names_rails_without_brackets():
    text = "=== PowerStats HAL 1.0 rail energy ===\n   Rail   Energy\n  vsys_modem   12.25 mWs\n=== End of x ===\n"
    assert parse_odpm(text).rails == {"vsys_modem": 12.25}


@pytest.mark.parametrize(
    "text, field, value",
    [
        ("  Charge counter: 0\n  voltage: 3900\n", "charge_uah", None),
        ("  Charge counter: -2147483648\n", "charge_uah", None),
        ("  level: 3\n  scale: 0\n", "level_percent", None),
        ("  level: 30\n  scale: 50\n", "level_percent", 60),
        ("  status: 3\r\n  voltage: 3900\r\n", "voltage_mv", 3900),
        ("  voltage: 3900\n  voltage: 1\n", "voltage_mv", 3900),
        ("  voltage: 3900000\n", "problems", ("a voltage of 3.9e+06 mV is no battery's",)),
        ("  voltage: 9" + "9" * 5000 + "\n", "voltage_mv", None),
        ("Can't find service: battery\n", "problems", ("no voltage was read",)),
        ("  AC powered: true\n  Dock powered: true\n", "plugged", ("AC", "Dock")),
    ],
)
def test_odd_values(text, field, value):
    assert getattr(parse_battery(text), field) == value


@pytest.mark.parametrize("parse", PARSERS)
def test_bytes_are_refused(parse):
    with pytest.raises(BatteryError, match="decode bytes"):
        parse(b"  voltage: 3900\n")


@pytest.mark.parametrize("parse", [parse_health, parse_power_supply, parse_odpm, parse_batterystats])
def test_another_output_is_refused(parse):
    with pytest.raises(BatteryError, match="Expected"):
        parse("Can't find service: android.hardware.health.IHealth/default\n")


SAVED = [path.read_text() for path in sorted(PHONES.glob("*.txt")) if path.name[:4] in ("batt", "heal", "odpm", "powe")]
TRACE = "@@period 1\n@ 1.5 2.5\n@@mark load_begin\n@@battery\n" + SAVED[1] + "@@current\n-41\n@@odpm\n" + SAVED[-2]


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(st.sampled_from([*SAVED, TRACE]), st.integers(0, 400), st.integers(0, 900), st.text(max_size=30))
def test_cut_and_broken_texts(text, start, length, junk):
    for broken in (text[start : start + length], text[:start] + junk + text[start + len(junk) :], junk):
        for parse in PARSERS:
            try:
                parse(broken)
            except BatteryError as error:
                assert str(error)
