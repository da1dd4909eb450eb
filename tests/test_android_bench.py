"""From end to end: 18 files of real digits on four emulated phones behind the real adb."""

import dataclasses
import json
import os
import time

import digit_files
import numpy as np
import pytest
from emulated_phone.binary import make_binary
from emulated_phone.personalities import ARM32, PIXEL, SAMSUNG, TABLET, XIAOMI
from emulated_phone.phone import EmulatedPhone
from emulated_phone.server import AdbServer

from android_bench import bench, measure
from android_bench.command import Timing
from android_bench.metrics import metrics
from android_bench.result import read_rows
from tfcompress.measure import run as run_file
from tfcompress.study.phones import as_devices
from tfcompress.study.report import write_report

KINDS = (PIXEL, SAMSUNG, XIAOMI, TABLET)
QUICK = Timing(runs=5, min_seconds=0, max_seconds=5, warmup_runs=1, warmup_seconds=0)
AT_ONCE = measure.Cooling(None, 0)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(folder of the 18 files, images, labels)."""
    folder = tmp_path_factory.mktemp("models")
    return folder, *digit_files.make(folder)


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    """Four phones that a real adb server has connected to; what a request needs to know of them."""
    root = tmp_path_factory.mktemp("farm")
    before = os.environ.get("ANDROID_BENCH_CACHE")
    os.environ["ANDROID_BENCH_CACHE"] = str(root / "cache")
    with AdbServer() as server:
        phones = [EmulatedPhone(kind, root / kind.name) for kind in KINDS]
        for phone in phones:
            phone.start()
            server.connect(phone.address)
        binaries = make_binary(root / "benchmark_model"), make_binary(root / "benchmark_model_arm", ARM32)
        yield root, phones, dict(adb_server=(f"127.0.0.1:{server.port}",), benchmark_binary=tuple(map(str, binaries)))
        for phone in phones:
            phone.stop()
    os.environ.pop("ANDROID_BENCH_CACHE")
    if before is not None:
        os.environ["ANDROID_BENCH_CACHE"] = before


@pytest.fixture(scope="module")
def results(digits, farm, tmp_path_factory):
    folder, images, labels = digits
    output = tmp_path_factory.mktemp("results") / "out"
    np.savez(folder / "test.npz", x=images, y=labels)
    page = bench.run(bench.Request(
        tuple(map(str, sorted(folder.glob("*.tflite")))), output=str(output), device=("all",), repetitions=1,
        eval=str(folder / "test.npz"), wait=10, wishes=measure.Wishes(QUICK, AT_ONCE), **farm[2],
    ), quiet=True)  # fmt: skip
    assert page == output / "report.html" and page.stat().st_size > 1_000_000
    return output


def test_seventy_two_rows_and_nothing_left_behind(results, farm):
    rows = read_rows(results)
    root, phones, _ = farm
    assert len(rows) == len({(row.device, row.id) for row in rows}) == 72
    assert {row.device for row in rows} == {"Pixel 7", "SM-S901B", "POCO F5", "MediaPad T5"}
    for row in rows:
        assert (row.device_kind, row.facts["emulated"], row.error) == ("emulated", True, None)
        assert row.delegate == "xnnpack" and row.runs == 5 and row.peak_memory_bytes > 1_000_000
        assert 0 < row.latency_min_us <= row.latency_p50_us <= row.latency_max_us
        assert row.init_us > 0 and row.first_run_us > 0
    assert [phone.leftovers() for phone in phones] == [([], [])] * 4
    assert not list((root / "cache").rglob("*.lock"))


def test_accuracy_on_the_phones_is_this_computers_to_the_last_bit(results, digits):
    folder, images, labels = digits
    here = {path.stem: metrics(labels, run_file(path.read_bytes(), images)[0]) for path in folder.glob("*.tflite")}
    assert len(here) == 18 and 0.85 < here["C0"].accuracy < 1
    for row in read_rows(results):
        assert (row.accuracy, row.macro_f1) == (here[row.id].accuracy, here[row.id].macro_f1), (row.device, row.id)
        assert (row.facts["host_agreement"], row.facts["host_max_difference"]) == (1.0, 0.0)
        assert row.facts["eval_samples"] == 200 and row.facts["eval_how"].startswith("200 samples a process")


def test_each_phone_has_an_order_of_its_own_and_it_is_known(results):
    orders = {}
    for row in read_rows(results):
        orders.setdefault(row.device, []).append(row.facts["repetitions"][0]["order"])
    assert all(sorted(order) == list(range(18)) for order in orders.values())
    assert len(set(map(tuple, orders.values()))) == 4


def test_a_finished_job_is_not_run_twice(results, digits, farm):
    folder, before = digits[0], (results / "jobs.jsonl").read_bytes()
    assert len(before.splitlines()) == 144  # latency and accuracy
    started = time.perf_counter()
    bench.run(bench.Request(
        tuple(map(str, sorted(folder.glob("*.tflite")))), output=str(results), device=("all",), repetitions=1,
        eval=str(folder / "test.npz"), wait=10, wishes=measure.Wishes(QUICK, AT_ONCE), **farm[2],
    ), quiet=True)  # fmt: skip
    assert (results / "jobs.jsonl").read_bytes() == before and time.perf_counter() - started < 20


def test_the_phones_are_devices_of_the_study(results):
    rows = read_rows(results)
    variants = [dict(id=row.id, model_sha256=row.model_sha256, recipe=f"recipe of {row.id}", raw_bytes=1000,
                     facts={"validation": {"accuracy": 0.9}}) for row in rows if row.device == "Pixel 7"]  # fmt: skip
    merged = as_devices(variants, rows)
    assert len(merged) == 72 and [row.id for row in merged[:18]] == [variant["id"] for variant in variants]
    control = next(row for row in merged if (row.id, row.device) == ("C0", "Pixel 7 (emulated)"))
    assert control.delta_accuracy == 0 and control.raw_bytes == 1000 and control.recipe == "recipe of C0"
    assert all(row.device.endswith(" (emulated)") for row in merged)
    page = write_report(merged, results / "study.html").read_text()
    table = page.split('id="matrix"')[1].split("</table>")[0]
    assert table.count("(emulated)") == 4 and table.count("<tr") == 19 and "not measured" not in table
    twin = [row.replace(facts=row.facts | {"serial": "TWIN0002"}, accuracy=row.accuracy / 2) for row in rows
            if row.device == "Pixel 7"]  # fmt: skip
    both = as_devices(variants, [*rows, *twin])  # of two folders, each with its own Pixel 7
    names = sorted({row.device for row in both if row.device.startswith("Pixel 7")})
    assert len(both) == 90 and names == ["Pixel 7 …0002 (emulated)", f"Pixel 7 …{PIXEL.serial[-4:]} (emulated)"]
    assert {row.delta_accuracy for row in both if row.id == "C0"} == {0}
    with pytest.raises(ValueError, match="give the results of each phone once"):
        as_devices(variants, [*rows, *rows])
    with pytest.raises(ValueError, match="missing on: Pixel 7"):
        as_devices(variants, [row for row in rows if row.id != "C0" or row.device != "Pixel 7"])
    with pytest.raises(ValueError, match="rows of other files"):
        as_devices(variants, [dataclasses.replace(rows[0], model_sha256="0" * 64)])


def test_threads_delegates_and_cores_make_configurations_of_their_own(digits, farm, tmp_path):
    bench.run(bench.Request(
        (str(digits[0] / "Q8.tflite"),), output=str(tmp_path), device=("Pixel 7",), repetitions=2, threads=(1, 2),
        delegate=("cpu", "builtin", "gpu"), cores=("", "big"), wishes=measure.Wishes(QUICK, AT_ONCE), **farm[2],
    ), quiet=True)  # fmt: skip
    rows = read_rows(tmp_path)
    assert len(rows) == 12
    ran = {(row.threads, row.facts["delegate_asked"], row.facts.get("core_mask")): row.delegate for row in rows}
    assert ran[1, "cpu", None] == "xnnpack" and ran[2, "builtin", "big"] == "builtin" and ran[1, "gpu", None] == "gpu"
    assert all(len(row.facts["repetitions"]) == 2 and row.runs == 10 for row in rows)


def test_energy_from_end_to_end_in_real_time(digits, farm, tmp_path):
    bench.run(bench.Request(
        (str(digits[0] / "C0.tflite"),), output=str(tmp_path), device=("Pixel 7", "MediaPad T5"), repetitions=1,
        wishes=measure.Wishes(QUICK, AT_ONCE, energy_minutes=0.15), **farm[2],
    ), quiet=True)  # fmt: skip
    pixel, tablet = sorted(read_rows(tmp_path), key=lambda row: row.device, reverse=True)
    energy = pixel.facts["energy"]
    assert pixel.energy_source == energy["source"] == "odpm" and pixel.energy_joules == energy["joules"]
    assert energy["low"] <= energy["joules"] <= energy["high"]
    assert PIXEL.idle_watts * 0.8 < energy["idle_watts"] < PIXEL.idle_watts * 1.3
    watts = energy["load_watts"] - energy["idle_watts"]
    assert PIXEL.load_watts * 0.8 < watts < PIXEL.load_watts * 1.2
    assert tablet.energy_joules is None and tablet.facts["energy"]["refused"]  # its counter steps by 1 %


def test_jobs_on_the_disk_have_no_duplicates(results):
    keys = [json.dumps([line[name] for name in ("serial", "id", "kind", "repetition")])
            for line in map(json.loads, (results / "jobs.jsonl").read_text().splitlines())]  # fmt: skip
    assert len(keys) == len(set(keys)) == 144
