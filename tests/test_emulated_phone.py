"""The emulated phones, asked by the real adb: each is itself, and each fault comes about."""

import re
import subprocess
import time

import adbutils
import numpy as np
import pytest
from emulated_phone import binary, models, personalities
from emulated_phone.faults import KINDS
from emulated_phone.personalities import PIXEL, TABLET
from emulated_phone.phone import EmulatedPhone
from emulated_phone.server import AdbServer

ONCE = "--num_runs=1 --min_secs=0 --warmup_runs=0 --warmup_min_secs=0"
PLACE = "/data/local/tmp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and input files on the host."""
    folder = tmp_path_factory.mktemp("models")
    models.write(folder)
    return folder


@pytest.fixture(scope="module")
def adb():
    with AdbServer() as server:
        yield server


@pytest.fixture
def device(adb, tmp_path, folder):
    """`device(PIXEL)`: a running phone with benchmark_model and models in /data/local/tmp, and its shell."""
    started = []

    def start(personality=PIXEL, **options):
        phone = EmulatedPhone(personality, tmp_path / f"phone{len(started)}", **options)
        phone.start()
        started.append(phone)
        assert adb.connect(phone.address) == f"connected to {phone.address}"
        return phone, Device(adb, phone, folder)

    yield start
    for phone in started:
        phone.stop()
        assert phone.processes() == []
        adb.run("disconnect", phone.address)


class Device:
    def __init__(self, adb, phone, folder):
        self.adb, self.phone, self.folder = adb, phone, folder

    def run(self, *arguments, **options):
        return self.adb.run("-s", self.phone.address, *arguments, **options)

    def shell(self, command, **options):
        done = self.run("shell", command, **options)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace").replace("\r\n", "\n")

    def output(self, command):
        return self.shell(command)[1]

    def install(self, machine=personalities.ARM64):
        made = binary.make_binary(self.folder / f"benchmark_model.{machine}", machine)
        assert self.run("push", str(made), f"{PLACE}/benchmark_model").returncode == 0
        assert self.run("push", str(self.folder / "tiny.tflite"), f"{PLACE}/tiny.tflite").returncode == 0

    def benchmark(self, flags=ONCE):
        return self.shell(f"cd {PLACE} && ./benchmark_model --graph=tiny.tflite {flags} 2>&1")

    def wait(self, seconds=5):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.adb.connect(self.phone.address)
            if self.shell("echo here")[1] == "here\n":
                return True
            self.adb.run("disconnect", self.phone.address)
            time.sleep(0.05)
        return False


@pytest.mark.parametrize("personality", personalities.ALL, ids=lambda p: p.name)
def test_each_phone_answers_as_itself(personality, device):
    phone, asked = device(personality)
    code, text = asked.shell("echo out; echo err >&2; exit 3")
    assert text == "out\nerr\n" and code == (3 if personality.shell_v2 else 0)
    properties = dict(re.findall(r"^\[(.*?)\]: \[(.*)\]$", asked.output("getprop"), re.M))
    assert properties["ro.tfcompress.emulated"] == "1"
    assert properties["ro.product.model"] == personality.model == asked.output("getprop ro.product.model").strip()
    assert properties["ro.product.cpu.abilist"] == personality.abis
    assert ("arm64-v8a" in personality.abis) == (personality is not TABLET)
    clocks = asked.output("cat /sys/devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq").split()
    assert sorted(map(int, clocks)) == sorted(cluster.max_khz for cluster in personality.clusters)
    assert f"{personality.ram_kb} kB" in asked.output("head -n 1 /proc/meminfo")
    battery = asked.output("dumpsys battery")
    assert re.search(r"^  level: \d+$", battery, re.M)
    assert ("EventLogBuffer" in battery) == (personality.name == "samsung")
    assert ("voltage: 13\n" in battery) == ("present: false" in battery) == (personality.name == "tv_box")
    assert asked.output("dumpsys nothing") == "Can't find service: nothing\n"
    thermal = asked.output("dumpsys thermalservice")
    assert ("Thermal Status: 0" in thermal) == (personality is not TABLET)
    assert ("mWs" in asked.output("dumpsys android.hardware.power.stats.IPowerStats/default")) == (personality is PIXEL)
    asked.install(int(personality.machines.split(",")[0]))
    assert "Inference timings in us" in asked.benchmark()[1]
    assert phone.leftovers() == ([], ["benchmark_model", "tiny.tflite"])


def test_push_and_pull_give_the_same_bytes(device, tmp_path):
    phone, asked = device()
    (tmp_path / "random").write_bytes(np.random.default_rng(0).bytes(1_500_000))
    program = binary.make_binary(tmp_path / "program")
    for name in ("random", "program"):
        asked.run("push", str(tmp_path / name), f"{PLACE}/new/folder/{name} with blanks")
        asked.run("pull", f"{PLACE}/new/folder/{name} with blanks", str(tmp_path / f"{name}.back"))
        assert (tmp_path / f"{name}.back").read_bytes() == (tmp_path / name).read_bytes()
    told = asked.output(f"cd {PLACE}/new/folder; sha256sum *").split("\n")
    assert told[0].split()[0] == subprocess.check_output(["sha256sum", program], text=True).split()[0]
    assert b"Permission denied" in asked.run("push", str(program), "/data/../../outside").stderr
    assert asked.run("pull", "/../../../../../../../etc/passwd", str(tmp_path / "stolen")).returncode == 1


def test_settings_are_kept_until_put_back(device):
    phone, asked = device()
    before = phone.settings()
    asked.shell("settings put system screen_brightness 9; cmd power set-fixed-performance-mode-enabled true; "
                "svc power stayon true; dumpsys battery unplug")  # fmt: skip
    after = phone.settings()
    assert after["system/screen_brightness"] == "9" and after["global/stay_on_while_plugged_in"] == "7"
    assert after["fixed_performance"] == "true" and "UPDATES STOPPED" in asked.output("dumpsys battery")
    asked.shell("settings put system screen_brightness 102; cmd power set-fixed-performance-mode-enabled false; "
                "svc power stayon false; dumpsys battery reset")  # fmt: skip
    assert phone.settings() == before | {"fixed_performance": "false"}
    assert asked.output("settings get system never_set") == "null\n"


def test_programs_refuse_the_wrong_processor_and_the_wrong_core(device):
    phone, asked = device(TABLET)
    asked.install(personalities.ARM64)
    assert "not executable: 64-bit ELF file" in asked.benchmark()[1]
    said = asked.output("taskset f0 echo there; taskset 100 echo not; taskset hi echo not").splitlines()
    assert said[0] == "there" and [line.split(":")[0] for line in said] == ["there", "taskset", "taskset"]


def test_energy_follows_the_load(device):
    phone, asked = device(pace=1.0)
    asked.install()

    def since_last_time():
        text = asked.output("dumpsys android.hardware.power.stats.IPowerStats/default delta")
        return [float(re.search(pattern, text)[1]) / 1000
                for pattern in (r"Battery .*\( *([\d.]+)\)", r"Elapsed time: (\d+) ms")]  # fmt: skip

    since_last_time()
    time.sleep(0.5)
    joules, seconds = since_last_time()
    assert seconds > 0.5 and joules == pytest.approx(phone.physics.idle_watts * seconds, rel=0.01)
    asked.benchmark()
    joules, seconds = since_last_time()
    load = joules - phone.physics.idle_watts * seconds
    assert phone.physics.load_watts * 0.99 < load < phone.physics.load_watts * 1.3
    phone.plug("USB")
    assert "USB powered: true" in asked.output("sleep 0.1; dumpsys battery")


# ---- faults: each comes about once, then the phone is well again ----

EXITS = {"killed": (137, "Killed"), "crash": (139, "Segmentation fault"), "wrong_abi": (126, "not executable")}


@pytest.mark.parametrize("kind", EXITS)
def test_benchmark_dies_once(kind, device):
    phone, asked = device()
    asked.install()
    phone.fault(kind)
    first, second = asked.output(f"cd {PLACE}; for k in 1 2; do ./benchmark_model --graph=tiny.tflite {ONCE} 2>&1; "
                                 "echo code=$?; done").split("code=", 2)[:2]  # fmt: skip
    code, words = EXITS[kind]
    assert words in first and "Inference timings" not in first
    assert second.startswith(str(code)) and "Inference timings" in second


def test_output_file_is_left_out_once(device):
    phone, asked = device()
    asked.install()
    phone.fault("no_output_file")
    for there in ("0", "1"):
        assert asked.benchmark(f"--output_filepath=y.bin {ONCE}")[0] == 0
        assert asked.output(f"ls {PLACE} | grep -c y.bin").strip() == there


def test_hung_shell_and_hung_benchmark(device):
    phone, asked = device()
    asked.install()
    phone.fault("hang", match="hello")
    phone.fault("hang_benchmark")
    assert asked.output("echo other") == "other\n"
    for command in ("echo hello", f"{PLACE}/benchmark_model --graph={PLACE}/tiny.tflite {ONCE}"):
        with pytest.raises(subprocess.TimeoutExpired):
            asked.shell(command, timeout=0.7)
        assert asked.output("echo alive") == "alive\n"
    assert asked.output("echo hello") == "hello\n"


def test_link_drops_in_mid_push_and_leaves_no_file(device, folder):
    phone, asked = device()
    phone.fault("drop_push")
    assert asked.run("push", str(folder / "x8.bin"), f"{PLACE}/x8.bin").returncode == 1
    assert asked.wait()
    assert asked.output(f"ls {PLACE}") == ""
    assert asked.run("push", str(folder / "x8.bin"), f"{PLACE}/x8.bin").returncode == 0


def test_link_drops_in_mid_shell_and_what_was_started_lives_on(device):
    phone, asked = device()
    phone.fault("drop_shell", after=0.2)
    assert asked.shell("echo short") == (0, "short\n")
    assert asked.shell("nohup sleep 30 >/dev/null 2>&1 & sleep 20; echo done")[0] == 255
    assert asked.wait()
    assert "sleep 30" in phone.leftovers()[0]


def test_phone_goes_away_and_comes_back(device):
    phone, asked = device()
    address = phone.address
    phone.fault("gone", seconds=0.5)
    assert asked.shell("echo here")[0] != 0
    assert asked.wait() and phone.address == address


def test_stranger_is_not_let_in(device, adb):
    phone, asked = device()
    adb.run("disconnect", phone.address)
    phone.fault("unauthorized")
    assert "failed to authenticate" in adb.connect(phone.address)
    end, line = time.monotonic() + 3, f"{phone.address}\tunauthorized"
    while line not in adb.run("devices").stdout.decode():  # adb shows "authorizing" first
        assert time.monotonic() < end
    adb.run("disconnect", phone.address)
    assert asked.wait()


def test_storage_full(device, folder):
    phone, asked = device()
    phone.fault("storage_full")
    assert " 0 100% " in asked.output("df")
    done = asked.run("push", str(folder / "x8.bin"), f"{PLACE}/x8.bin")
    assert done.returncode == 1 and b"No space left on device" in done.stderr
    assert asked.output(f"ls {PLACE}; df | grep -c 100%").strip() == "0"
    phone.fault("storage_full", match="mkdir")
    assert "No space left" in asked.output("mkdir x") and asked.output("mkdir x; echo ok") == "ok\n"


def test_thermal_trip_while_a_benchmark_runs(device):
    phone, asked = device()
    asked.install()
    phone.fault("thermal_trip", status=3, cap=0.5, seconds=0.3)
    limits = "cat /sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq"
    assert "Thermal Status: 0" in asked.output("dumpsys thermalservice")
    asked.benchmark()
    assert "Thermal Status: 3" in asked.output("dumpsys thermalservice")
    assert asked.output(limits).split() == [str(cluster.max_khz // 2) for cluster in PIXEL.clusters]
    assert "Thermal Status: 0" in asked.output("sleep 0.6; dumpsys thermalservice")
    assert asked.output(limits).split() == [str(cluster.max_khz) for cluster in PIXEL.clusters]


def test_garbage_noise_and_names_that_lead_outside(device):
    phone, asked = device()
    phone.fault("battery_garbage")
    assert "level: 62" not in asked.output("dumpsys battery") and "level: 62" in asked.output("dumpsys battery")
    phone.fault("noise", megabytes=50)
    noise = asked.run("shell", "echo end").stdout
    assert len(noise) > 50e6 and noise.count(b"\x1b[31m") > 1000 and noise.endswith(b"end\n")
    phone.fault("evil_paths")
    device = adbutils.AdbClient(port=asked.adb.port).device(phone.address)
    for evil in (True, False):
        assert ("../../../../outside" in [file.path for file in device.sync.list(PLACE)]) == evil
    with pytest.raises(ValueError, match=f"Known faults: {', '.join(KINDS)}"):
        phone.fault("flood")
