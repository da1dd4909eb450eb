"""What a phone is measured with and left like: LiteRT 2's tool, a clean-up that fails, a hot start, twins."""

import dataclasses
import types

import numpy as np
import pytest
import small_files
from emulated_phone.binary import make_binary
from emulated_phone.personalities import PIXEL
from phone_farm import QUICK, farm

from android_bench import cli
from android_bench.adb import Phone, Server
from android_bench.energy.battery import parse_battery
from android_bench.measure import Cooling, Measurer
from android_bench.phones import choose, survey
from android_bench.session import FOLDER
from android_bench.settings import Wanted, apply
from android_bench.thermal import Snapshot, Temperature, Thermal, throttled


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("farm"), PIXEL) as phones:
        (phones.root / "m.tflite").write_bytes(small_files.tflite())
        yield phones


def test_litert_2s_tool_gives_times_and_says_what_it_does_not(one, tmp_path):
    binary = make_binary(tmp_path / "benchmark_model", tool="litert2")
    data = tmp_path / "eval.npz"
    np.savez(data, x=small_files.X, y=[0] * len(small_files.X))
    wishes = dataclasses.replace(QUICK, energy_minutes=0.01)
    (row,) = one.measure([one.root / "m.tflite"], tmp_path / "out", benchmark_binary=(str(binary),), eval=str(data),
                         wishes=wishes)  # fmt: skip
    assert row.error is None and row.latency_p50_us > 0 and row.facts["binary"]["tool"] == "litert2"
    assert (row.accuracy, row.peak_memory_bytes, row.energy_joules) == (None, None, None)
    for note in (row.facts["accuracy_note"], row.facts["memory_note"], row.facts["energy"]["refused"]):
        assert "gives times only" in note


def test_a_clean_up_that_fails_keeps_what_it_needs(one, capsys):
    phone, program = one.phones[0], one.phones[0].root / "bin/settings"
    before, real = phone.settings(), program.read_text()
    apply(Phone(Server(one.address), phone.address), FOLDER, Wanted(brightness=7))
    program.write_text(real.replace("put)", "put) exit 1;;\n    put)", 1))
    assert cli.main(["clean", f"--adb-server={one.address}"]) == 1
    assert "not every setting could be put back" in capsys.readouterr().err
    program.write_text(real)
    assert phone.settings() != before
    assert cli.main(["clean", f"--adb-server={one.address}"]) == 0
    assert phone.settings() == before and not (phone.root / FOLDER.lstrip("/")).exists()


def test_two_phones_of_one_serial_number_are_told_of_and_each_transport_leads_there(tmp_path):
    with farm(tmp_path, PIXEL, dataclasses.replace(PIXEL, model="Pixel 7a")) as two:
        found = survey([Server(two.address)])
        assert len(found.phones) == 1 and "only the first is used" in found.problems[0]
        for phone in two.phones:
            assert choose(found, [phone.address]) == [found.phones[0]]


def heat(celsius, limit=2_000_000):
    thermal = Thermal(0, (Temperature("skin", "SKIN", celsius, 0),))
    return Snapshot(10.0, thermal, parse_battery(""), (limit,), (limit,), (2_000_000,))


def test_a_hot_phone_cools_to_the_limit_first_and_then_to_what_the_room_allows():
    readings = iter([heat(45), heat(40), heat(36.5), heat(38), heat(50), heat(38.4)])
    pauses = []
    session = types.SimpleNamespace(snapshot=lambda: next(readings), phone=types.SimpleNamespace(pause=pauses.append))
    measurer = Measurer(session, dataclasses.replace(QUICK, cooling=Cooling(37.0, 300, 5)), None)
    words, first = measurer._cool()
    assert (first.celsius()["skin"], len(pauses)) == (36.5, 2) and "skin 45.0 °C, above 37.0 °C" in words
    assert measurer._cool()[1].celsius()["skin"] == 38 and len(pauses) == 2  # within 2 °C of the start
    assert measurer._cool()[1].celsius()["skin"] == 38.4 and len(pauses) == 3


def test_a_cap_that_was_there_when_the_phone_was_cool_is_no_throttling():
    capped, more = heat(30, 1_500_000), heat(30, 1_000_000)
    assert throttled(capped, capped) and throttled(capped, capped, start=capped) is None
    assert "1.00 of 1.50 GHz after the run" in throttled(capped, more, start=capped)


def test_a_screen_that_was_off_is_switched_on_and_the_row_says_so(one, tmp_path):
    (one.phones[0].root / "state/screen").write_text("off\n")
    (row,) = one.measure([one.root / "m.tflite"], tmp_path / "out", wanted=Wanted(stay_awake=True))
    assert row.facts["screen"] == "on"
