"""Shares of processor time, clocks and clusters, from hand-made /proc text and from one real busy process."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_bench.cpu import CpuUse, cpu_use, parse_cpufreq, parse_cpuinfo, parse_top

PHONES = Path(__file__).parent / "golden" / "phones"
BEGIN = "100.00 700.00\ncpu  1000 0 500 8000 100 0 0 0 0 0\n"
END = "104.00 716.00\ncpu  2400 0 700 10300 200 0 0 0 0 0\n"  # 4 s of 10 cores: 1600 ticks of 4000 busy
DASH = "0m0.010000s 0m0.020000s\n0m4.200000s 0m0.600000s\n"
MKSH = "0m00.01s 0m00.02s\n0m04.20s 0m00.60s\n"


def block(seconds, ticks, *, name="benchmark_model", state="R", rss=2000, hwm=3000, clocks="clocks 1000000 -"):
    utime, stime = ticks - ticks // 4, ticks // 4
    return textwrap.dedent(f"""\
        @ {seconds:.2f} 700.00
        cpu  1000 0 500 8000 100 0 0 0 0 0
        4242 ({name}) {state} 1 4242 0 0 -1 4194304 300 0 0 0 {utime} {stime} 0 0 20 0 4 0 12345 1000 500 18446744073
        VmHWM:\t    {hwm} kB
        VmRSS:\t    {rss} kB
        Cpus_allowed_list:\t4-7
        {clocks}
        """)


def test_the_samples_of_a_run_give_every_number():
    samples = block(101, 50) + block(102, 400, clocks="clocks 2000000 -") + block(103, 750, hwm=4096, rss=4096)
    assert cpu_use(BEGIN, END, DASH, samples) == CpuUse(
        process_percent=350.0, system_percent=40.0, peak_memory_bytes=4096 * 1024,
        mean_clocks_khz=(1333333, None), cpus_allowed="4-7", samples=3,
    )  # fmt: skip


@pytest.mark.parametrize("times", [DASH, MKSH, MKSH.replace("\n", "\r\n")])
@pytest.mark.parametrize("samples", ["", block(101, 50), "@ 101.00 7\ncat: /proc/4242/stat: No such file\n" * 3])
def test_a_run_too_short_for_two_samples_uses_the_shells_times(times, samples):
    assert cpu_use(BEGIN, END, times, samples).process_percent == 120.0  # 4.8 s of 4 s


@pytest.mark.parametrize("name", ["a b", "a) R 9 9", "((x)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", ")", "cpu 1", "ü"])
def test_the_name_of_a_process_may_hold_anything(name):
    found = cpu_use(BEGIN, END, "", block(101, 100, name=name) + block(102, 180, name=name))
    assert (found.process_percent, found.samples) == (80.0, 2)


def test_a_script_that_waits_for_others_is_judged_by_its_total():
    samples = block(101, 1) + block(103, 3)
    assert cpu_use(BEGIN, END, "", samples).process_percent == 1.0
    assert cpu_use(BEGIN, END, DASH, samples).process_percent == 120.0


def test_the_time_of_children_that_ended_counts():
    done = block(103, 100).replace(" 75 25 0 0 20", " 75 25 60 40 20")
    assert cpu_use(BEGIN, END, "", block(101, 100) + done).process_percent == 50.0


def test_a_zombie_does_not_stretch_the_life_of_a_process():
    found = cpu_use(BEGIN, END, "", block(101, 100) + block(102, 200) + block(109, 200, state="Z"))
    assert (found.process_percent, found.samples) == (100.0, 2)


@pytest.mark.parametrize(("begin", "end", "times", "samples"), [
    ("", "", "", ""),
    (BEGIN, "", DASH, ""),
    (BEGIN, BEGIN, DASH, ""),  # no time passed
    (END, BEGIN, DASH, ""),  # backwards
    ("1.00 1\ncpu 1 2 3\n", "1.05 2\ncpu 2 3 4\n", DASH, block(1, 100) + block(1.02, 90)),
    ("x", "y", "0m1s", "@ \ncpu \n1 (\nVmHWM:\nclocks\n@ 1.0"),
])  # fmt: skip
def test_what_is_missing_is_not_measured(begin, end, times, samples):
    found = cpu_use(begin, end, times, samples)
    assert found.process_percent is None and found.system_percent is None


def test_a_real_busy_process_uses_one_core(tmp_path):
    """The loop of run.sh in small: this machine's /proc about a process that never waits."""
    sample = "echo @ $(cat /proc/uptime); head -n 1 /proc/stat; cat /proc/$1/stat; grep Vm /proc/$1/status"
    script = f"""
        (cat /proc/uptime; head -n 1 /proc/stat) >begin
        ( "$@" & p=$!; set -- $p; for i in 1 2 3 4 5; do sleep 0.2; {sample}; done >samples; wait $p; times >times )
        (cat /proc/uptime; head -n 1 /proc/stat) >end
    """
    busy = """if True:
        import time
        start = time.monotonic(), time.process_time()
        while time.monotonic() - start[0] < 1.4: pass
        print(100 * (time.process_time() - start[1]) / (time.monotonic() - start[0]))
    """
    run = ["sh", "-c", script, "sh", sys.executable, "-c", busy]
    done = subprocess.run(run, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True)
    truth = float(done.stdout)  # 100 but for what other processes took of the core
    begin, end, times, samples = ((tmp_path / name).read_text() for name in ("begin", "end", "times", "samples"))
    found = cpu_use(begin, end, times, samples)
    assert found.samples == 5
    assert found.process_percent == pytest.approx(truth, abs=20)
    assert cpu_use(begin, end, times, "").process_percent == pytest.approx(truth, abs=20)
    assert 0.7 * truth / os.cpu_count() < found.system_percent <= 100
    assert 1e6 < found.peak_memory_bytes < 100e6


def test_clusters_are_ranked_by_their_top_clock_and_listed_once():
    policies = parse_cpufreq(
        "/sys/devices/system/cpu/cpufreq/policy7|7|800000|2850000|2850000|1000000\n"
        "/sys/devices/system/cpu/cpufreq/policy0|3 1 2 0|300000|1803000|1803000|<unknown>\n"
        "/sys/devices/system/cpu/cpufreq/policy4|4 5 6|400000||2253000|900000\n"
        "/sys/devices/system/cpu/cpu1/cpufreq|0 1 2 3|1|2|3|4\n"
        "sh: /sys/devices: Permission denied\n"
    )
    assert [(p.cpus, p.min_khz, p.max_khz, p.limit_khz, p.clock_khz) for p in policies] == [
        ((0, 1, 2, 3), 300000, 1803000, 1803000, None),
        ((7,), 800000, 2850000, 2850000, 1000000),
        ((4, 5, 6), 400000, None, 2253000, 900000),
    ]
    assert policies[0].path == "/sys/devices/system/cpu/cpufreq/policy0"


def test_a_core_whose_cluster_is_unreadable_stands_alone():
    assert [p.cpus for p in parse_cpufreq("/sys/devices/system/cpu/cpu5/cpufreq|||||")] == [(5,)]


def test_toybox_top():
    top = parse_top((PHONES / "top_toybox.txt").read_text())
    assert top.system_percent == 3.0  # 776 % of 800 % idle
    assert [(t.pid, t.name, t.percent, t.memory_bytes) for t in top.tasks] == [
        (9021, "benchmark_model", 396.0, 96 << 20), (11916, "com.smellouk.k+", 40.0, 149 << 20),
    ]  # fmt: skip


def test_tops_colours_and_other_formats():
    line = " 9021 shell        20   0 1.2G 640K  40M S 12.5   1.2   0:31.77 sh -c sleep 1"
    top = parse_top(f"\x1b[7m  PID USER \x1b[0m\n\x1b[1m{line}\x1b[m\n")
    assert (top.tasks[0].name, top.tasks[0].memory_bytes, top.system_percent) == ("sh -c sleep 1", 640 << 10, None)
    assert parse_top("User 5%, System 3%, IOW 0%, IRQ 0%\n  PID PR CPU% S #THR VSS\n").tasks == ()


def test_dumpsys_cpuinfo():
    found = parse_cpuinfo((PHONES / "cpuinfo_dumpsys.txt").read_text())
    assert (found.seconds, found.system_percent) == (7.14, None)
    assert [(t.pid, t.percent) for t in found.tasks] == [
        (1844, 58.0), (3895, 50.0), (1864, 26.0), (4880, 22.0), (7834, 9.7), (2198, 4.9),
    ]  # fmt: skip
    assert [t.name for t in found.tasks][1:5:3] == ["com.google.android.wearable.app:ui", "kworker/0:2"]
    assert parse_cpuinfo("12.5% TOTAL: 8% user + 4% kernel").system_percent == 12.5


WORDS = st.lists(st.sampled_from([
    "@ 1.0 2\n", "@ 999999999.9\n", "cpu ", "1 (a) R ", "9" * 30 + " ", "-1 ", "0 ", "VmHWM: ", "clocks ",
    "Cpus_allowed_list: ", "/sys/x|", "0 1|", "|||||\n", "²", "0m1s ", "\n", "\0", "\x1b[7m", "5% ", "1/x: ",
    "%cpu ", "800%cpu ", "900%idle ",
]))  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=60), WORDS.map("".join)), min_size=4, max_size=4))
def test_garbage_is_never_an_error(texts):
    found = cpu_use(*texts)
    assert found.system_percent is None or 0 <= found.system_percent <= 100
    assert found.process_percent is None or found.process_percent >= 0
    for text in texts:
        parse_cpufreq(text), parse_top(text), parse_cpuinfo(text)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(["top_toybox.txt", "cpuinfo_dumpsys.txt"]), st.data())
def test_cut_or_damaged_lists_are_never_an_error(name, data):
    text = (PHONES / name).read_text()
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    for middle in ("", data.draw(st.text(max_size=9))):
        damaged = text[:start] + middle + text[end:]
        assert len(parse_top(damaged).tasks) <= 2 and len(parse_cpuinfo(damaged).tasks) <= 6
