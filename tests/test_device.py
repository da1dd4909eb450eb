"""What a phone is: real getprop answers, and the scripts themselves under a shell with a made-up phone around it."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from android_bench import device, thermal
from android_bench.device import Cluster, DeviceError, core_mask, describe, device_table, parse_getprop, read_facts

PHONES = Path(__file__).parent / "golden" / "phones"
SHELLS = [shell for shell in ("dash", "bash", "mksh", "busybox") if shutil.which(shell)]
CPU, SUPPLY = "/sys/devices/system/cpu/", "/sys/class/power_supply"


def golden(name):
    return (PHONES / name).read_text()


def facts(getprop="[ro.product.model]: [X]", **parts):
    return read_facts("".join(f"@@{name}\n{text}\n" for name, text in {"getprop": getprop, **parts}.items()))


def cores(*clusters):
    """Facts of a phone with these (cpus, kHz) clusters."""
    lines = [f"{CPU}cpu{cpus[0]}/cpufreq|{' '.join(map(str, cpus))}|300000|{khz}|{khz}|" for cpus, khz in clusters]
    return facts(cpufreq="\n".join(lines))


@pytest.fixture
def s22(tmp_path):
    """A folder that answers as a phone: `run(command, shell)`; its cores are those of cpufreq_s22.txt."""
    related = ["0 1 2 3"] * 4 + ["4 5 6"] * 3 + ["7"]
    for line in golden("cpufreq_s22.txt").splitlines():
        name, lowest, highest = re.fullmatch(r"(cpu\d) .*min_freq=(\d+)(?: \| max_freq=(\d+)|.*)", line).groups()
        folder = tmp_path / "sys/devices/system/cpu" / name / "cpufreq"
        folder.mkdir(parents=True)
        texts = {"related_cpus": related[int(name[3:])], "cpuinfo_min_freq": lowest, "cpuinfo_max_freq": highest,
                 "scaling_max_freq": highest, "scaling_cur_freq": lowest}  # fmt: skip
        for file, text in texts.items():
            if text:  # the last core's top clock is cut off in the source
                (folder / file).write_text(text + "\n")
    for supply, kind in (("usb", "USB"), ("battery", "Battery"), ("bms", "BMS")):
        folder = tmp_path / "sys/class/power_supply" / supply
        folder.mkdir(parents=True)
        (folder / "current_now").write_text("-1469687\n")
        (folder / "type").write_text(kind + "\n")
    (tmp_path / "meminfo").write_text("MemTotal:        7812345 kB\nMemFree: 1 kB\n")
    answers = {
        "getprop": golden("getprop_pixel7.txt"), "wm size": "Physical size: 1080x2340\nOverride size: 720x1560\n",
        "wm density": "Physical density: 480\n",
        "dumpsys power": "  mWakefulnessChanging=false\n  mWakefulness=Awake\n",
        "dumpsys battery": golden("battery_samsung_a10.txt"),
        "dumpsys thermalservice": golden("thermal_galaxy_s22.txt"),
        "dumpsys android.hardware.power.stats.IPowerStats/default": golden("odpm_hal2_delta.txt"),
    }  # fmt: skip
    (tmp_path / "bin").mkdir()
    for index, answer in enumerate(answers.values()):
        (tmp_path / f"answer{index}").write_text(answer)
    lines = [f'"{command}") cat "{tmp_path}/answer{index}";;' for index, command in enumerate(answers)]
    for name in ("getprop", "wm", "dumpsys"):
        (tmp_path / "bin" / name).write_text(
            f'#!/bin/sh\necho "$0" >>"{tmp_path}/started"\ncase "${{0##*/}}${{1:+ $*}}" in\n' + "\n".join(lines) +
            '\n*) echo "Can\'t find service: $*"; exit 20;;\nesac\n'
        )  # fmt: skip
        (tmp_path / "bin" / name).chmod(0o755)

    def run(command, shell="sh"):
        command = command.replace("/sys/", f"{tmp_path}/sys/").replace("/proc/meminfo", f"{tmp_path}/meminfo")
        argv = [shutil.which(shell), *(["sh"] if shell == "busybox" else []), "-c", command]
        done = subprocess.run(argv, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)  # fmt: skip
        return done.stdout

    run.folder = tmp_path
    return run


@pytest.mark.parametrize("shell", SHELLS)
def test_facts_of_a_whole_phone(s22, shell):
    found = read_facts(s22(device.facts_command(), shell))
    assert (found.name, found.serial, found.soc, found.screen, found.form) == (
        "Pixel 7", "2A111FDH200ABC", "Tensor G2", "on", "phone",
    )  # fmt: skip
    assert found.clusters == (
        Cluster((0, 1, 2, 3), 614400, 1363200, f"{CPU}cpu0/cpufreq"),
        Cluster((4, 5, 6), 633600, 1996800, f"{CPU}cpu4/cpufreq"),
        Cluster((7,), None, None, f"{CPU}cpu7/cpufreq"),
    )
    assert (found.ram_bytes, found.battery.level_percent, found.battery.celsius) == (7812345 * 1024, 84, 33.6)
    assert (found.thermal.status, len(found.thermal.temperatures)) == (0, 5)
    assert found.power_supply == "/sys/class/power_supply/battery/current_now"
    assert found.has_odpm and not found.emulated


@pytest.mark.parametrize("shell", SHELLS)
def test_a_snapshot_of_a_whole_phone(s22, shell):
    limit = s22.folder / "sys/devices/system/cpu/cpu4/cpufreq/scaling_max_freq"
    before = thermal.read_snapshot(s22(device.snapshot_command(), shell))
    limit.write_text("1497600\n")
    after = thermal.read_snapshot(s22(device.snapshot_command(), shell))
    assert before.uptime_seconds > 0 and before.top_khz == (1363200, 1996800, None)
    assert before.clocks_khz[:2] == (614400, 633600)
    assert before.celsius() == {"skin": 35.8, "battery": 36.3, "cpu": 39.6}
    assert thermal.throttled(before, before) is None
    assert thermal.throttled(before, after) == "clock limited to 1.50 of 2.00 GHz after the run"


def test_a_phone_that_answers_only_getprop(s22):
    for name in ("wm", "dumpsys"):
        (s22.folder / "bin" / name).unlink()
    shutil.rmtree(s22.folder / "sys")
    (s22.folder / "meminfo").unlink()
    found = read_facts(s22(device.facts_command()))
    assert found.name == "Pixel 7"
    assert (found.form, found.ram_bytes, found.clusters, found.screen) == ("unknown", None, (), None)
    assert (found.battery.level_percent, found.thermal.status, found.power_supply) == (None, None, None)
    assert not found.has_odpm


def test_offline_cores_have_no_folder(s22):
    for core in (0, 4, 5, 6):
        shutil.rmtree(s22.folder / f"sys/devices/system/cpu/cpu{core}")
    assert [cluster.policy for cluster in read_facts(s22(device.facts_command())).clusters] == [
        f"{CPU}cpu1/cpufreq", f"{CPU}cpu7/cpufreq",
    ]  # fmt: skip


def test_the_commands_are_short_and_cheap(s22):
    for command in (device.facts_command(), device.snapshot_command()):
        assert len(command.encode()) <= 4000 and "#" not in command
    s22(device.facts_command())
    assert len((s22.folder / "started").read_text().splitlines()) == 7  # beside two greps and one for MemTotal


def test_the_real_pixel():
    found = facts(golden("getprop_pixel7.txt"), wm="Physical size: 1080x2400\nPhysical density: 420")
    assert (found.serial, found.model, found.maker, found.name) == ("2A111FDH200ABC", "Pixel 7", "Google", "Pixel 7")
    assert (found.soc, found.android, found.sdk, found.form) == ("Tensor G2", "14", 34, "phone")
    assert found.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
    assert found.fingerprint == "google/panther/panther:14/UQ1A.240105.004/11206848:user/release-keys"
    assert not found.emulated and not found.has_odpm


def test_the_real_tablet():
    found = facts(golden("getprop_tablet_wgr_w09.txt"))
    assert (found.name, found.model, found.form, found.sdk) == ("HUAWEI MatePad Pro", "WGR-W09", "tablet", 31)
    assert (found.serial, found.soc, found.maker, found.android, found.abis) == (None, None, None, None, ())


@pytest.mark.parametrize(("characteristics", "wm", "form"), [
    ("nosdcard", "Physical size: 1600x2560\nPhysical density: 320", "tablet"),  # 800 dp
    ("default", "Physical size: 2560x1536\nPhysical density: 410", "phone"),  # 599 dp
    ("phone", "Physical size: 1080x2400\nPhysical density: 440\nOverride density: 200", "phone"),
    ("nosdcard,tablet", "", "tablet"), ("tv,nosdcard", "Physical size: 1920x1080\nPhysical density: 240", "tv"),
    ("watch", "Physical size: 450x450\nPhysical density: 320", "unknown"), ("nosdcard", "wm: not found", "unknown"),
    ("", "Physical size: 1080x2400\nPhysical density: 0", "unknown"),
])  # fmt: skip
def test_phone_or_tablet(characteristics, wm, form):
    assert facts(f"[ro.build.characteristics]: [{characteristics}]", wm=wm).form == form


@pytest.mark.parametrize(("text", "screen"), [
    ("  mWakefulness=Asleep\nDisplay Power: state=OFF", "off"), ("  mWakefulness=Dozing", "off"),
    ("mWakefulness=Awake\nDisplay Power: state=ON", "on"), ("mWakefulness=Awake\nDisplay Power: state=DOZE", "off"),
    ("  mWakefulness=Dreaming", "on"), ("", None), ("Can't find service: power", None),
])  # fmt: skip
def test_the_screen(text, screen):
    assert facts(screen=text).screen == screen


@pytest.mark.parametrize(("getprop", "soc"), [
    ("[ro.soc.model]: [SM8550]\n[ro.board.platform]: [kalama]\n[ro.hardware]: [qcom]", "SM8550"),
    ("[ro.soc.model]: []\n[ro.board.platform]: [msm8998]\n[ro.hardware]: [qcom]", "msm8998"),
    ("[ro.hardware]: [hi6250]", "hi6250"),
])
def test_the_processor_by_its_best_name(getprop, soc):
    assert facts(getprop).soc == soc


@pytest.mark.parametrize("getprop", [
    "[ro.kernel.qemu]: [1]", "[ro.boot.qemu]: [1]", "[ro.tfcompress.emulated]: [1]", "[ro.hardware]: [ranchu]",
    "[ro.hardware]: [goldfish]",
])  # fmt: skip
def test_an_emulated_phone_says_so(getprop):
    assert facts(getprop).emulated


@pytest.mark.parametrize(("supplies", "path"), [
    (f"{SUPPLY}/usb|USB|0", None), (f"{SUPPLY}/bms|BMS|0\n{SUPPLY}/battery|Battery|5", "battery"),
    (f"{SUPPLY}/usb|USB|0\n{SUPPLY}/bms|BMS|12\n{SUPPLY}/fg|Battery|1", "fg"),
    ("/tmp/phone 1/sys/class/power_supply/bms||-5", "bms"),
    (f"{SUPPLY}/battery|Battery|", None), (f"{SUPPLY}/main||5", None), (f"{SUPPLY}/$(reboot)|Battery|5", None),
    ("", None),
])  # fmt: skip
def test_the_battery_current_that_can_be_read(supplies, path):
    assert facts(supplies=supplies).power_supply == (path and f"/sys/class/power_supply/{path}/current_now")


@pytest.mark.parametrize(("text", "found"), [
    ("[a]: [1]\r\n[b]: [x [y] z]\r\n", {"a": "1", "b": "x [y] z"}),
    ("[a]: [first]\n[second] of a]\n[b]: []", {"a": "first]\n[second] of a", "b": ""}),
    ("[a]: [1]\nwarning: linker", {"a": "1"}), ("[a]: [cut", {}), ("sh: getprop: not found", {}), ("", {}),
])  # fmt: skip
def test_getprop(text, found):
    assert parse_getprop(text) == found


FOUR = (((0, 1), 1800000), ((2, 3, 4), 2800000), ((5, 6), 3000000), ((7,), 3300000))


@pytest.mark.parametrize(("clusters", "which", "mask"), [
    (FOUR, "little", "3"), (FOUR, "big", "7c"), (FOUR, "prime", "80"), (FOUR, "all", "ff"), (FOUR, "F0", "f0"),
    (FOUR, "0x10", "10"), (FOUR[:2], "big", "1c"), (FOUR[:2], "little", "3"), (FOUR[:1], "all", "3"), ((), "30", "30"),
    (FOUR[:1], "ff", "3"),
    ((((4, 5, 6, 7), 2000000), ((0, 1, 2, 3), 1500000)), "big", "f0"),
])  # fmt: skip
def test_core_mask(clusters, which, mask):
    assert core_mask(cores(*clusters), which) == mask


@pytest.mark.parametrize(("clusters", "which", "message"), [
    (FOUR[:1], "big", "same top clock"), ([((0,), 2000000), ((1,), 2000000)], "little", "same top clock"),
    (FOUR[:2], "prime", "two kinds of cores"), ((), "big", "doesn't tell its cores"), ((), "all", "doesn't tell"),
    ([((0,), 2000000), ((1,), "")], "big", "hides the top clock"), (FOUR, "0", "none of the cores"),
    (FOUR, "100", "none of the cores"), (FOUR, "large", "Expected little, big"), (FOUR, "", "Expected little"),
    (FOUR, "7; reboot", "Expected little"), (FOUR, "f0\n", "Expected little"), (FOUR, "٣", "Expected little"),
])  # fmt: skip
def test_core_mask_refuses_what_the_phone_does_not_have(clusters, which, message):
    with pytest.raises(DeviceError, match=message):
        core_mask(cores(*clusters), which)


def test_describe_is_json_without_what_is_unknown(s22):
    found = json.loads(json.dumps(describe(read_facts(s22(device.facts_command()))), allow_nan=False))
    assert found["battery"] == {"percent": 84, "plugged": found["battery"]["plugged"], "celsius": 33.6}
    assert found["thermal"] == {"status": 0, "celsius": {"skin": 35.8, "battery": 36.3, "cpu": 39.6}}
    assert found["clusters"][1] == {"cpus": [4, 5, 6], "min_khz": 633600, "max_khz": 1996800}
    assert (found["abi"], found["emulated"], found["sdk"]) == ("arm64-v8a", False, 34)
    little = describe(facts())
    assert (little["model"], little["form"]) == ("X", "unknown")
    assert not {"soc", "serial", "clusters", "thermal", "abi", "ram_bytes"} & set(little)


def test_the_table_shows_each_phone_and_takes_no_orders_from_it(s22):
    hostile = facts("[ro.product.model]: [[red]\x1b[2J Q]\n[ro.serialno]: [a\tb]\n[ro.kernel.qemu]: [1]")
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=False)
    console.print(device_table([read_facts(s22(device.facts_command())), hostile]))
    shown = text.getvalue()
    for words in ("Google Pixel 7", "2A111FDH200ABC", "Tensor G2", "4 × 1.36 GHz", "1 × ? GHz", "7.5 GiB", "84 %",
                  "Android 14", "screen on", "USB", "status 0 (none)", "skin 35.8 °C", "[red] [2J Q", "emulated"):
        assert words in shown
    assert "\x1b" not in shown and max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("text", ["", "error: device offline", "@@getprop\n/system/bin/sh: getprop: not found\n", None])
def test_an_answer_that_is_no_phone_is_refused(text):
    with pytest.raises(DeviceError, match="facts.sh"):
        read_facts(text)


WHOLE = (
    f"@@getprop\n{golden('getprop_pixel7.txt')}@@wm\nPhysical size: 1080x2400\nPhysical density: 420\n"
    f"@@screen\nmWakefulness=Awake\n@@memory\nMemTotal: 7812345 kB\n@@battery\n{golden('battery_samsung_a10.txt')}"
    f"@@thermal\n{golden('thermal_throttling_aidl.txt')}@@supplies\n/sys/class/power_supply/bms|BMS|12\n"
    f"@@cpufreq\n{CPU}cpu0/cpufreq|0 1|300000|1800000|1|2\n{CPU}cpu2/cpufreq|2|300000|2800000|1|2\n"
)


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_garbage_raises_nothing_but_device_error(data):
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))))
    for text in (WHOLE[:end], WHOLE[:start] + data.draw(st.text(max_size=30)) + WHOLE[end:], data.draw(st.text())):
        try:
            found = read_facts(text)
            core_mask(found, data.draw(st.sampled_from(["little", "big", "prime", "all", "3"])))
        except DeviceError:
            continue
        json.dumps(describe(found), allow_nan=False)
        device_table([found])
