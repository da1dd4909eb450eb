"""What a phone's battery, sensors and clocks do while its `benchmark_model` runs or doesn't; written to its files."""

import dataclasses
import os
import select
import threading
import time
from pathlib import Path

from emulated_phone import texts
from emulated_phone.faults import Faults
from emulated_phone.personalities import Personality

TICK_SECONDS = 0.2
CHARGER_WATTS = {None: 0.0, "USB": 2.5, "AC": 15.0}
ROOM = 25.0  # Celsius
BIG_SHARE = 0.7  # of the load's energy that the ODPM rails see in the big cores; the rest is the little ones'


@dataclasses.dataclass
class State:
    """Of a phone at one moment: charge in uAh, energy in mWs (= mJ), temperatures in Celsius, power in watts."""

    charge_uah: float
    voltage_mv: float = 3950.0
    discharge_ua: float = 0.0
    plugged: str | None = None
    watts: float = 0.0
    energy_mws: float = 5_566_778.0
    load_mws: float = 1_444_443.0
    elapsed_ms: int = 0
    cpu: float = 36.0
    skin: float = 30.0
    battery: float = 28.0
    status: int = 0
    cap: float = 1.0
    load: bool = False

    def level(self, capacity_uah: float) -> int:
        return round(100 * self.charge_uah / capacity_uah)


class Physics:
    """Runs in a thread from `start` to `stop`. `speed` multiplies every flow of energy, hence the watts a host sees.

    Attributes:
        state: how things are; a test may plant other values (`plugged`, `charge_uah`, `skin`, ...) at any time.
        idle_watts, load_watts: what a host ought to find: the load's watts come on top of the idle ones.
    """

    def __init__(self, personality: Personality, root: Path, faults: Faults, speed: float, plugged: str | None):
        if plugged not in CHARGER_WATTS:
            raise ValueError(f"Expected plugged to be one of {list(CHARGER_WATTS)}. Received: {plugged!r}")
        self.personality, self.root, self.faults = personality, root, faults
        self.idle_watts, self.load_watts = personality.idle_watts * speed, personality.load_watts * speed
        self.speed = speed
        self.state = State(charge_uah=0.62 * personality.capacity_uah, plugged=plugged)
        self._written: dict[str, str] = {}
        self._trip, self._trip_end = None, 0.0
        self._then = self._began = time.monotonic()
        self._poke, self._thread = None, None

    def start(self) -> None:
        self._then = self._began = time.monotonic()
        fifo = self.root / "state/poke"
        if not fifo.exists():
            os.mkfifo(fifo)
        self._poke = os.open(fifo, os.O_RDWR)
        self.step()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread:
            os.write(self._poke, b"end\n")
            self._thread.join()
            os.close(self._poke)
            self._thread = None

    def poke(self) -> None:
        """Step now, or as soon as the thread gets to it."""
        if self._thread:
            os.write(self._poke, b"test\n")

    def _run(self) -> None:
        """A step a tick, and one at once for every process that writes its id to `state/poke`."""
        words: list[str] = []
        while "end" not in words:
            ready, _, _ = select.select([self._poke], [], [], TICK_SECONDS)
            words = os.read(self._poke, 4096).decode().split() if ready else []
            self.step()
            for word in filter(str.isdigit, words):
                (self.root / f"state/poked.{word}").touch()

    def step(self) -> None:
        """Move from the last moment to this one and write what changed."""
        now = time.monotonic()
        seconds, busy = now - self._then, self._busy_seconds(self._then, now)
        self._then, state = now, self.state
        self._thermal_trip(now)
        joules = self.idle_watts * seconds + self.load_watts * busy
        state.watts = joules / seconds if seconds > 0 else self.idle_watts
        state.elapsed_ms = round((now - self._began) * 1000)
        state.energy_mws += joules * 1000
        state.load_mws += self.load_watts * busy * 1000
        net = state.watts - CHARGER_WATTS[state.plugged] * self.speed
        level = state.charge_uah / self.personality.capacity_uah
        state.voltage_mv = 1000 * (3.45 + 0.85 * level) - 20 * net / self.speed
        state.discharge_ua = net / state.voltage_mv * 1e9
        state.charge_uah -= state.discharge_ua * seconds / 3600
        state.charge_uah = min(max(state.charge_uah, 0.0), self.personality.capacity_uah)
        load = busy / seconds if seconds > 0 else 0.0
        self._warm(seconds * self.speed, load)
        self._write()

    def _warm(self, seconds: float, load: float) -> None:
        """First-order warming towards the end temperature of this load; time constants of a real phone."""
        state, watts = self.state, self.personality.idle_watts + self.personality.load_watts * load
        for name, rise, time_constant in (("cpu", 9.0, 4.0), ("skin", 3.0, 90.0), ("battery", 2.0, 180.0)):
            share = 1 - 2.718281828 ** (-seconds / time_constant)
            value = getattr(state, name)
            setattr(state, name, value + share * (ROOM + 4 + rise * watts - value))

    def _busy_seconds(self, begin: float, end: float) -> float:
        """Seconds between the two moments in which a benchmark ran; each has a file: when it began, when it ended."""
        folder, busy = self.root / "state/load", 0.0
        for name in os.listdir(folder):
            alive = _alive(name)
            words = (folder / name).read_text().split()
            if words:  # else it is being written
                last = float(words[1]) if len(words) > 1 else end
                busy += max(0.0, min(last, end) - max(float(words[0]), begin))
            if not alive:
                (folder / name).unlink()
        self.state.load = busy > 0
        return min(busy, end - begin)

    def _thermal_trip(self, now: float) -> None:
        """A planted trip comes about when a run begins and stays until some time after its end."""
        state = self.state
        if self._trip is None and state.load:
            self._trip = self.faults.take("thermal_trip")
        if self._trip is None:
            return
        if state.load:
            self._trip_end = now + self._trip.get("seconds", 1.0)
            state.status, state.cap = self._trip.get("status", 3), self._trip.get("cap", 0.5)
            state.skin = max(state.skin, self._trip.get("celsius", 46.0))
        elif now > self._trip_end:
            state.status, state.cap, self._trip = 0, 1.0, None
            state.skin = state.battery = ROOM + 5

    def _write(self) -> None:
        p, state = self.personality, self.state
        files = {"state/battery": texts.battery(p, state), "state/thermal": texts.thermal(p, state)}
        if p.health_hal or p.health_lshal:
            files["state/health"] = texts.health(p, state)
        if p.odpm:
            files["state/odpm"] = texts.odpm_rails(state, BIG_SHARE)
        if p.power_supply == "readable":
            files |= {f"sys/class/power_supply/battery/{k}": v for k, v in texts.power_supply(p, state).items()}
        for cluster in p.clusters:
            folder = f"sys/devices/system/cpu/cpufreq/policy{cluster.cpus[0]}"
            top = max(cluster.min_khz, round(cluster.max_khz * state.cap))
            files[f"{folder}/scaling_max_freq"] = f"{top}\n"
            files[f"{folder}/scaling_cur_freq"] = f"{top if state.load else cluster.min_khz}\n"
        for name, text in files.items():
            if self._written.get(name) != text:
                write_whole(self.root / name, text)
                self._written[name] = text


def write_whole(path: Path, text: str) -> None:
    """A reader sees the old text or the new one, never a part."""
    hidden = path.with_name(f".{path.name}.new")
    hidden.write_text(text)
    hidden.rename(path)


def _alive(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
