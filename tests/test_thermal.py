"""Temperatures and throttling from what real phones printed, and from snapshots put together by hand."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_bench.thermal import (
    Thermal,
    ThermalError,
    hottest,
    parse_thermalservice,
    read_snapshot,
    sections,
    throttled,
    warm,
)

PHONES = Path(__file__).parent / "golden" / "phones"
CPU = "/sys/devices/system/cpu/cpufreq/"


def golden(name):
    return (PHONES / name).read_text()


def snapshot(status=0, skin=30.0, battery=300, limits=(1800000, 2800000), uptime="5000.25 3.00"):
    return read_snapshot(
        f"@@uptime\n{uptime}\n@@thermal\nThermal Status: {status}\nCurrent temperatures from HAL:\n"
        f"\tTemperature{{mValue={skin}, mType=3, mName=VIRTUAL-SKIN, mStatus={status}}}\n@@battery\n"
        f"Current Battery Service state:\n  level: 80\n  temperature: {battery}\n@@cpufreq\n"
        f"{CPU}policy0|0 1 2 3|300000|1800000|{limits[0]}|600000\n{CPU}policy4|4 5|300000|2800000|{limits[1]}|\n"
    )


@pytest.mark.parametrize(("name", "status", "temperatures"), [
    ("thermal_absent.txt", None, []),
    ("thermal_galaxy_s22.txt", 0, [
        ("AP", "CPU", 39.6), ("BAT", "BATTERY", 36.3), ("PATHM", "POWER_AMPLIFIER", 40.8), ("SKIN", "SKIN", 35.8),
        ("USB", "USB_PORT", 36.9),
    ]),  # its two batteries at 0.0 are none
    ("thermal_throttling_aidl.txt", 1, [
        ("CPU", "CPU", 61.5), ("SKIN", "SKIN", 34.35), ("BATTERY", "BATTERY", 33.1), ("TPU", "NPU", 55.0),
    ]),  # the cached skin is 48.5
])  # fmt: skip
def test_each_real_output(name, status, temperatures):
    found = parse_thermalservice(golden(name))
    assert found.status == status
    assert [(t.name, t.kind, t.celsius) for t in found.temperatures] == temperatures


def test_the_thresholds_of_a_phone_that_publishes_them():
    found = parse_thermalservice(golden("thermal_throttling_aidl.txt"))
    assert [t.status for t in found.temperatures] == [0, 1, 0, 0]
    assert [(t.name, t.kind) for t in found.thresholds] == [("SKIN", "SKIN")]
    assert found.thresholds[0].hot_celsius == (None, 40.0, 44.0, 50.0, 70.0, 80.0, 90.0)


@pytest.mark.parametrize("value", ["0.0", "-0.0", "NaN", "-273.0", "-274.5", "3.4028235E38", "36000.0", "", "0xF", "²"])
def test_a_value_that_no_phone_survives_is_no_sensor(value):
    text = f"Current temperatures from HAL:\n\tTemperature{{mValue={value}, mType=0, mName=AP, mStatus=0}}\n"
    assert parse_thermalservice(text).temperatures == ()


def test_volts_and_percent_are_no_temperatures_and_new_kinds_are_skipped():
    rows = [f"\tTemperature{{mValue=4.1, mType={kind}, mName=a, b, mStatus=0}}" for kind in (6, 7, 8, 99, -1)]
    found = parse_thermalservice("Current temperatures from HAL:\n" + "\n".join(rows))
    assert [(t.name, t.kind) for t in found.temperatures] == [("a, b", "UNKNOWN")]


def test_a_status_that_somebody_set_is_not_the_phones():
    assert parse_thermalservice("IsStatusOverride: true\nThermal Status: 0\n").status is None


def test_a_snapshot():
    found = snapshot(skin=35.5, battery=312, limits=(1800000, 2400000))
    assert (found.uptime_seconds, found.thermal.status) == (5000.25, 0)
    assert found.celsius() == {"skin": 35.5, "battery": 31.2}
    assert (found.clocks_khz, found.limits_khz, found.top_khz) == (
        (600000, None), (1800000, 2400000), (1800000, 2800000),
    )  # fmt: skip


def test_the_hottest_of_each_kind_and_a_battery_sensor_before_dumpsys_battery():
    battery = snapshot(battery=290).battery
    assert hottest(parse_thermalservice(golden("thermal_galaxy_s22.txt")), battery) == {
        "cpu": 39.6, "battery": 36.3, "skin": 35.8,
    }  # fmt: skip
    assert hottest(parse_thermalservice(golden("thermal_absent.txt")), battery) == {"battery": 29.0}
    for wrong in ({"celsius": None}, {"updates_stopped": True}, {"present": False}):
        assert hottest(Thermal(None, ()), dataclasses.replace(battery, **wrong)) == {}


@pytest.mark.parametrize(("before", "after", "reason"), [
    ({}, {}, None),
    ({}, {"status": 2}, "thermal status 2 (moderate) after the run"),
    ({"status": 1}, {}, "thermal status 1 (light) before the run"),
    ({}, {"limits": (1800000, 2400000)}, "clock limited to 2.40 of 2.80 GHz after the run"),
    ({"limits": (900000, 2400000)}, {}, "clock limited to 0.90 of 1.80 GHz before the run"),
    ({}, {"limits": (1720000, 2680000)}, None),  # within 5 %
    ({}, {"limits": ("", "")}, None),
    ({"status": ""}, {"status": ""}, None),
])  # fmt: skip
def test_throttled_says_why(before, after, reason):
    assert throttled(snapshot(**before), snapshot(**after)) == reason


def test_clocks_held_down_on_purpose_are_no_throttling():
    held, lower = snapshot(limits=(1200000, 1500000)), snapshot(limits=(1200000, 1300000))
    assert throttled(held, held) == "clock limited to 1.50 of 2.80 GHz before the run"
    assert throttled(held, held, fixed_performance=True) is None
    assert throttled(held, lower, fixed_performance=True) == "clock limited to 1.30 of 1.50 GHz after the run"


@pytest.mark.parametrize(("now", "limit", "start", "reason"), [
    ({}, 38, None, None),
    ({"status": 1}, 38, None, "thermal status 1 (light)"),
    ({"skin": 38.1}, 38, None, "skin 38.1 °C, above 38.0 °C"),
    ({"battery": 402}, 38, None, "battery 40.2 °C, above 38.0 °C"),
    ({"skin": 38.0}, 38, None, None),
    ({"skin": 33.0}, None, {}, "skin 33.0 °C, above 32.0 °C"),
    ({"skin": 33.0}, 38, {}, None),  # either is enough
    ({"skin": 41.5}, 38, {"skin": 40.0}, None),  # a hot room
    ({"skin": 99.0}, None, None, None),  # nothing to compare with
    ({"skin": "NaN"}, 38, None, None),
    ({"limits": (1800000, 1400000)}, 38, {}, "clock limited to 1.40 of 2.80 GHz"),
    ({"limits": (1800000, 1400000)}, 38, {"limits": (1800000, 1400000)}, None),
])  # fmt: skip
def test_warm_says_why(now, limit, start, reason):
    assert warm(snapshot(**now), limit, None if start is None else snapshot(**start)) == reason


def test_a_phone_without_thermal_service_cools_by_its_battery():
    text = f"@@uptime\n9.5 1\n@@thermal\n{golden('thermal_absent.txt')}\n@@battery\n  temperature: 391\n@@cpufreq\n"
    assert warm(read_snapshot(text), 38) == "battery 39.1 °C, above 38.0 °C"


def test_a_cluster_that_went_offline_is_not_compared_with_another():
    less = read_snapshot(f"@@uptime\n1.5 1\n@@cpufreq\n{CPU}policy0|0|1000|1800000|900000|900000\n")
    assert warm(less, 38, snapshot()) is None


@pytest.mark.parametrize("text", ["", "error: no devices\n", "@@uptime\nPermission denied\n@@battery\n", b"@@uptime"])
def test_text_without_an_uptime_is_refused(text):
    with pytest.raises(ThermalError, match="snapshot.sh"):
        read_snapshot(text)


def test_sections_survive_errors_windows_line_ends_and_repeated_names():
    text = "noise\n@@a\r\nx\r\n\r\n@@b\nsh: not found\n@@a\nlate\n@@ c \n1@@d\n"
    assert sections(text) == {"a": "x", "b": "sh: not found", "c": "1@@d"}


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(["thermal_galaxy_s22.txt", "thermal_throttling_aidl.txt"]), st.data())
def test_garbage_raises_nothing_but_thermal_error(name, data):
    text = f"@@uptime\n12.5 1.0\n@@thermal\n{golden(name)}@@cpufreq\n{CPU}policy0|0 1|3|1800000|900000|900000\n"
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    for damaged in (text[:end], text[:start] + data.draw(st.text(max_size=30)) + text[end:], data.draw(st.text())):
        try:
            found = read_snapshot(damaged)
        except ThermalError:
            continue
        assert all(-50 <= celsius <= 200 for celsius in found.celsius().values())
        assert throttled(found, found) is None or isinstance(warm(found, 38, found), str | None)
