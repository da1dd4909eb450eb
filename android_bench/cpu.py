"""Processors: the clocks of each cluster, and what a run took of them. Text of /proc, /sys, top in; values out."""

import dataclasses
import itertools
import re
from statistics import fmean

TICKS_PER_SECOND = 100  # CLK_TCK: the unit of the times in /proc/stat and /proc/PID/stat, 100 on every Android
SHORTEST_SECONDS = 0.1  # below ten ticks a share of processor time is noise


@dataclasses.dataclass(frozen=True)
class Policy:
    """The cores that share one clock. `None` = unreadable."""

    path: str  # its folder below /sys
    cpus: tuple[int, ...]
    min_khz: int | None  # what the hardware can do
    max_khz: int | None
    limit_khz: int | None  # what it is allowed now; heat lowers it
    clock_khz: int | None  # now


@dataclasses.dataclass(frozen=True)
class CpuUse:
    """What a run took of the processors. `None` = not measured."""

    process_percent: float | None  # processor time / wall time * 100; 100 = one core
    system_percent: float | None  # 0..100 of all cores, whoever used them
    peak_memory_bytes: int | None  # largest resident set seen
    mean_clocks_khz: tuple[int | None, ...]  # one for each policy sampled, in the order asked
    cpus_allowed: str | None  # "4-7": the cores that the process was really kept on
    samples: int  # samples with the process alive


def parse_cpufreq(text: str) -> tuple[Policy, ...]:
    """The policies in lines `PATH|CPUS|LOWEST|HIGHEST|LIMIT|NOW` (facts.sh, snapshot.sh), slowest first.

    The same policy is listed once for each of its cores: the first line wins. Other lines are left alone.

    >>> for policy in parse_cpufreq('''/sys/devices/system/cpu/cpu0/cpufreq|0 1|300000|1800000|1800000|900000
    ... /sys/devices/system/cpu/cpu1/cpufreq|0 1|300000|1800000|1800000|900000'''):
    ...     print(policy.cpus, policy.max_khz)
    (0, 1) 1800000
    """
    found = {}
    for line in text.split("\n"):
        path, *fields = line.strip().split("|")
        if len(fields) != 5 or "/sys/" not in path:
            continue
        cpus = tuple(sorted({int(cpu) for cpu in re.findall(r"(?<!\d)[0-9]{1,3}(?!\d)", fields[0])}))
        own = re.search(r"/(?:policy|cpu)([0-9]{1,3})(?:/|$)", path)
        cpus = cpus or ((int(own[1]),) if own else ())
        if cpus and not any(set(cpus) & set(known) for known in found):
            found[cpus] = Policy("/sys/" + path.rpartition("/sys/")[2], cpus, *map(_khz, fields[1:]))
    return tuple(sorted(found.values(), key=lambda p: (p.max_khz is None, p.max_khz or 0, p.cpus)))


def elsewhere(mask: str, allowed: str | None) -> str | None:
    """In words, that a process ran on other cores than its hexadecimal mask says; `allowed` as the kernel tells it.

    >>> elsewhere("f0", "4-7"), elsewhere("f0", "0-3,6")
    (None, 'asked for cores 4-7, the kernel allowed 0-3,6')
    """
    if not mask or not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,99}", allowed or ""):
        return None
    wanted = {core for core in range(4 * len(mask)) if int(mask, 16) >> core & 1}
    ends = [(int(part.partition("-")[0]), int(part.rpartition("-")[2])) for part in allowed.split(",")]
    if wanted == {core for first, last in ends for core in range(first, last + 1)}:
        return None
    runs = [core for core in sorted(wanted) if core - 1 not in wanted]
    ends = [core for core in sorted(wanted) if core + 1 not in wanted]
    asked = ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in zip(runs, ends, strict=True))
    return f"asked for cores {asked}, the kernel allowed {allowed}"


def cpu_use(begin: str, end: str, times: str, samples: str) -> CpuUse:
    """What a run took, from the files that run.sh leaves in its folder; parts that are missing become `None`.

    Args:
        begin, end: the line of /proc/uptime and the `cpu` line of /proc/stat, before and after the run.
        times: what sh's `times` printed: its second line is the user and system time of the command.
        samples: blocks of `@ UPTIME`, the `cpu` line, /proc/PID/stat, Vm* and Cpus_allowed_list, `clocks KHZ ...`.

    >>> cpu_use("@ 10.00 0", "@ 12.00 0", "0m0.00s 0m0.00s 0m1.50s 0m0.30s", "").process_percent
    90.0
    """
    before, after, blocks = _block(begin), _block(end), [_block(text) for text in _blocks(samples)]
    alive = [block for block in blocks if block.process_ticks is not None]
    sampled = _process_percent(alive[0], alive[-1]) if len(alive) > 1 else None
    whole = _whole_percent(before, after, times)
    # A process that only waits for others, as a script does, shows their time too late: then its total is the truth.
    trusted = sampled is not None and (whole is None or sampled > whole / 2)
    system = _system_percent(before, after)
    if system is None and len(blocks) > 1:
        system = _system_percent(blocks[0], blocks[-1])
    columns = itertools.zip_longest(*(block.clocks_khz for block in blocks))
    clocks = [[clock for clock in column if clock is not None] for column in columns]
    memory = [block.peak_bytes for block in blocks if block.peak_bytes is not None]
    allowed = [block.cpus_allowed for block in blocks if block.cpus_allowed is not None]
    return CpuUse(
        process_percent=sampled if trusted else whole,
        system_percent=system,
        peak_memory_bytes=max(memory, default=None),
        mean_clocks_khz=tuple(round(fmean(column)) if column else None for column in clocks),
        cpus_allowed=allowed[-1] if allowed else None,
        samples=len(alive),
    )


@dataclasses.dataclass(frozen=True)
class _Block:
    seconds: float | None = None
    busy_ticks: int | None = None
    all_ticks: int | None = None
    process_ticks: int | None = None
    peak_bytes: int | None = None
    cpus_allowed: str | None = None
    clocks_khz: tuple[int | None, ...] = ()


def _blocks(samples: str) -> list[str]:
    return re.split(r"^(?=@ )", samples, flags=re.M)[1:]


def _block(text: str) -> _Block:
    """One sample; `begin` and `end` are samples too, of which only the first two lines are there."""
    found = {}
    for line in text.split("\n"):
        words = line.split()
        if re.match(r"(@ )?\d{1,9}\.\d{1,6}(\s|$)", line, re.A):
            found["seconds"] = float(words[1] if words[0] == "@" else words[0])
        elif line.startswith("cpu "):
            ticks = _integers(words[1:9])  # user nice system idle iowait irq softirq steal; guests are part of user
            if len(ticks) >= 4:
                found |= {"all_ticks": sum(ticks), "busy_ticks": sum(ticks) - sum(ticks[3:5])}
        elif re.match(r"\d+ \(", line, re.A):
            state, *fields = line.rpartition(")")[2].split()[:15] or [""]  # a name may hold blanks and parentheses
            ticks = _integers(fields[10:14])  # utime stime cutime cstime
            if state not in ("Z", "X") and len(ticks) == 4:
                found["process_ticks"] = sum(ticks)
        elif line.startswith(("VmHWM:", "VmRSS:")):
            kilobytes = _integers(words[1:2])
            if kilobytes:
                found["peak_bytes"] = max(found.get("peak_bytes", 0), kilobytes[0] * 1024)
        elif re.match(r"Cpus_allowed_list:\s*[0-9,-]{1,200}$", line.rstrip()):
            found["cpus_allowed"] = words[-1].removeprefix("Cpus_allowed_list:")
        elif line.startswith("clocks "):
            found["clocks_khz"] = tuple(map(_khz, words[1:]))
    return _Block(**found)


def _integers(words: list[str]) -> list[int]:
    """The leading words that are whole numbers."""
    return [int(word) for word in itertools.takewhile(re.compile(r"[0-9]{1,18}$").match, words)]


def _khz(word: str) -> int | None:
    return int(word) if re.fullmatch(r"[0-9]{3,9}", word.strip()) else None


def _seconds_between(first: _Block, last: _Block) -> float | None:
    """Wall time between two blocks, `None` where it is unknown or too short to tell anything."""
    if first.seconds is None or last.seconds is None:
        return None
    seconds = last.seconds - first.seconds
    return seconds if seconds >= SHORTEST_SECONDS else None


def _process_percent(first: _Block, last: _Block) -> float | None:
    seconds, ticks = _seconds_between(first, last), last.process_ticks - first.process_ticks
    return None if seconds is None or ticks < 0 else round(100 * ticks / TICKS_PER_SECOND / seconds, 1)


def _whole_percent(before: _Block, after: _Block, times: str) -> float | None:
    """From sh's `times`: `0m0.12s 0m0.01s` twice, the shell's own and then its children's."""
    seconds = _seconds_between(before, after)
    parts = re.findall(r"(\d{1,6})m(\d{1,6}(?:\.\d{1,6})?)s", times, re.A)
    if seconds is None or len(parts) != 4:
        return None
    used = sum(60 * int(minutes) + float(rest) for minutes, rest in parts[2:])
    return round(100 * used / seconds, 1)


def _system_percent(before: _Block, after: _Block) -> float | None:
    if before.all_ticks is None or after.all_ticks is None:
        return None
    busy, every = after.busy_ticks - before.busy_ticks, after.all_ticks - before.all_ticks
    return round(100 * busy / every, 1) if every > 0 and 0 <= busy <= every else None


@dataclasses.dataclass(frozen=True)
class Task:
    """A process in a list of them."""

    pid: int
    name: str
    percent: float  # 100 = one core
    memory_bytes: int | None = None  # resident


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What was busy on a phone at some moment, the busiest first: to name what disturbed a run, not to measure one."""

    system_percent: float | None  # 0..100 of all cores
    seconds: float | None  # length of the time looked at
    tasks: tuple[Task, ...]


def parse_top(text: str) -> Tasks:
    """The answer of toybox's `top -b -n1` (Android 8 and later). Its first sample is the mean since the boot.

    >>> top = parse_top('''800%cpu  12%user   0%nice  10%sys 776%idle   0%iow   2%irq
    ...  9021 shell        20   0  11G  96M  40M R  396   1.2   0:31.77 benchmark_model''')
    >>> top.system_percent, top.tasks[0].name, top.tasks[0].percent
    (3.0, 'benchmark_model', 396.0)
    """
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    shares = {name: int(share) for share, name in re.findall(r"\b([0-9]{1,6})%(cpu|idle|iow)\b", text)}
    every, idle = shares.get("cpu"), shares.get("idle", 0) + shares.get("iow", 0)
    busy = round(100 * (every - idle) / every, 1) if every and idle <= every else None
    row = r"^ *([0-9]{1,9}) \S+ +\S+ +\S+ +\S+ +(\S+) +\S+ [A-Z][<NLsl+]* +([0-9]{1,6}(?:\.[0-9]+)?) +\S+ +\S+ (.+)$"
    tasks = [
        Task(int(pid), name.strip(), float(percent), _bytes(memory))
        for pid, memory, percent, name in re.findall(row, text, re.M)
    ]
    return Tasks(busy, None, tuple(sorted(tasks, key=lambda task: -task.percent)))


def parse_cpuinfo(text: str) -> Tasks:
    """The answer of `dumpsys cpuinfo`: the mean over a time in the past that the phone chose.

    >>> found = parse_cpuinfo("CPU usage from 900ms to 400ms ago:\\n  58% 1844/logd: 58% user + 0% kernel")
    >>> found.seconds, found.tasks
    (0.5, (Task(pid=1844, name='logd', percent=58.0, memory_bytes=None),))
    """
    window = re.search(r"CPU usage from ([0-9]{1,12})ms to ([0-9]{1,12})ms", text)
    row = r"^ +\+?([0-9]{1,6}(?:\.[0-9]+)?)% ([0-9]{1,9})/(.+?): "
    tasks = [Task(int(pid), name, float(percent)) for percent, pid, name in re.findall(row, text, re.M)]
    total = re.search(r"^ *([0-9]{1,3}(?:\.[0-9]+)?)% TOTAL:", text, re.M)
    return Tasks(
        system_percent=float(total[1]) if total else None,
        seconds=abs(int(window[1]) - int(window[2])) / 1000 if window else None,
        tasks=tuple(sorted(tasks, key=lambda task: -task.percent)),
    )


def _bytes(text: str) -> int | None:
    """149M, 1.2G, 640K: the sizes that top prints."""
    size = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMGT]?)", text)
    return round(float(size[1]) * 1024 ** " KMGT".index(size[2] or " ")) if size else None
