"""``android-bench COMMAND ...``: parses flags, calls one function, prints what it gives. No logic lives here."""

import contextlib
import json
import os
import re
import signal
import sys
import threading

from absl import flags

USAGE = """android-bench: latency, accuracy, CPU, memory, heat and energy of .tflite files on phones, without root

  android-bench devices                     the attached phones, as a table (--json for machines)
  android-bench run FILE.tflite [...]       measure on one phone, several (--device all), or this computer (host)
  android-bench compare A B                 two results folders: ratios with intervals, and a verdict for CI
  android-bench report FOLDER               write the report of a results folder again
  android-bench clean                       put settings back on phones and remove our files from them
  android-bench host FILE.tflite [...]      this computer alone, one JSON row a file

'android-bench COMMAND --help' shows a command's flags."""


def _adb_flags(values, choice=True):
    if choice:
        flags.DEFINE_list("device", [], "phones, by serial or name; 'all'; 'host' is this computer", flag_values=values)
    flags.DEFINE_string("adb", None, "the adb program (default: PATH, else the one of adbutils)", flag_values=values)
    flags.DEFINE_list("adb_server", [], "adb servers, HOST:PORT (default: this computer's)", flag_values=values)
    flags.DEFINE_list("connect", [], "wireless phones to connect first, HOST:PORT", flag_values=values)


def _run_flags(values):
    from android_bench.binary import URLS

    known = "; ".join(f"{abi}: {url}" for abi, url in URLS.items())
    _adb_flags(values)
    define = {"flag_values": values}
    flags.DEFINE_list("benchmark_binary", [], "the official benchmark_model, path or URL, one for each kind of "
                      f"processor; default $ANDROID_BENCH_BINARY. Known: {known}", **define)  # fmt: skip
    flags.DEFINE_list("library", [], "shared libraries that the binary or a delegate needs", **define)
    flags.DEFINE_string("output", "results", "folder of the results; a run that was stopped goes on", short_name="o",
                        **define)  # fmt: skip
    flags.DEFINE_list("threads", ["1"], "numbers of threads", **define)
    flags.DEFINE_list("delegate", ["cpu"], "cpu (XNNPACK), builtin (plain kernels), gpu, gpu32, nnapi, "
                      "nnapi:ACCELERATOR, hexagon, npu, external:/path/on/phone.so", **define)  # fmt: skip
    flags.DEFINE_list("cores", [], "cores to run on: little, big, prime, all, or a hexadecimal mask", **define)
    flags.DEFINE_integer("repetitions", 3, "processes for each latency", lower_bound=1, **define)
    flags.DEFINE_integer("runs", 50, "runs at least, in each process", lower_bound=1, **define)
    flags.DEFINE_float("min_seconds", 1.0, "seconds of runs at least", lower_bound=0, **define)
    flags.DEFINE_float("max_seconds", 150.0, "seconds of runs at most", lower_bound=0, **define)
    flags.DEFINE_integer("warmup_runs", 1, "runs before the timed ones, at least", lower_bound=0, **define)
    flags.DEFINE_float("warmup_seconds", 0.5, "seconds of warm-up at least", lower_bound=0, **define)
    flags.DEFINE_integer("seed", 0, "of the order of the jobs", **define)
    flags.DEFINE_string("eval", None, ".npz with x (or inputs by name) and y: accuracy on the phone", **define)
    flags.DEFINE_integer("eval_limit", None, "take only so many samples of it", lower_bound=1, **define)
    flags.DEFINE_float("energy_minutes", 0, "minutes of load for the energy of a run, and as many idle before and "
                       "after it", lower_bound=0, **define)  # fmt: skip
    flags.DEFINE_string("sustain", "0m", "load for so long (30m, 90s), for the curve of a warming phone", **define)
    flags.DEFINE_float("cool_down", 37.0, "start a run only below this skin and battery temperature, °C; 0: at once",
                       lower_bound=0, **define)  # fmt: skip
    flags.DEFINE_float("cool_down_wait", 300.0, "wait no longer than so many seconds for that", lower_bound=0, **define)
    flags.DEFINE_bool("stay_awake", True, "keep the screen on meanwhile", **define)
    flags.DEFINE_integer("brightness", None, "of the screen, 0..255", lower_bound=0, upper_bound=255, **define)
    flags.DEFINE_bool("fixed_performance", False, "Android 11's sustained clocks: slower, steadier", **define)
    flags.DEFINE_float("wait", 60.0, "seconds to wait for a phone that went away", lower_bound=0, **define)
    flags.DEFINE_bool("retry_failed", False, "run jobs again that failed before", **define)


def _devices(argv):
    values = flags.FlagValues()
    _adb_flags(values, choice=False)
    flags.DEFINE_bool("json", False, "as JSON", flag_values=values)
    _parse(values, argv, "devices", 0, 0)
    from android_bench.bench import Request, servers
    from android_bench.device import describe, device_table
    from android_bench.phones import choose, survey

    found = survey(servers(Request((), **_connection(values))))
    phones = choose(found, ["all"]) if found.phones or not (found.problems or values.json) else []
    if values.json:
        described = [describe(phone.facts) | {"adb_serial": phone.phone.serial} for phone in phones]
        print(json.dumps({"phones": described, "problems": found.problems}, indent=1, ensure_ascii=False))
    else:
        if phones:
            _console().print(device_table([phone.facts for phone in phones]))
        for problem in found.problems:
            print(problem)
    return 0 if phones else 1


def _run(argv):
    values = flags.FlagValues()
    _run_flags(values)
    paths = _parse(values, argv, "run FILE.tflite [...]", 1)
    from android_bench.bench import Request, run
    from android_bench.command import Timing
    from android_bench.measure import Cooling, Wishes
    from android_bench.settings import Wanted

    if not all(word.isdecimal() and int(word) for word in values.threads):
        raise ValueError(f"--threads takes whole numbers from 1, separated by commas. Received: {values.threads}.")
    timing = Timing(values.runs, values.min_seconds, values.max_seconds, values.warmup_runs, values.warmup_seconds)
    wishes = Wishes(timing, Cooling(values.cool_down or None, values.cool_down_wait if values.cool_down else 0.0),
                    None, _minutes(values.sustain), values.energy_minutes)  # fmt: skip
    page = run(Request(
        tuple(paths), output=values.output, **_connection(values), benchmark_binary=tuple(values.benchmark_binary),
        library=tuple(values.library), threads=tuple(map(int, values.threads)), delegate=tuple(values.delegate),
        cores=tuple("" if mask == "any" else mask for mask in values.cores or [""]), repetitions=values.repetitions,
        seed=values.seed, eval=values.eval, eval_limit=values.eval_limit, retry_failed=values.retry_failed,
        wait=values.wait, wishes=wishes,
        wanted=Wanted(values.stay_awake, values.brightness, values.fixed_performance),
    ))  # fmt: skip
    print(f"Report: {page.resolve()}")
    return 0


def _compare(argv):
    values = flags.FlagValues()
    flags.DEFINE_float("threshold", 0.05, "a smaller change is none", flag_values=values)
    first, second = _parse(values, argv, "compare A B", 2, 2)
    from android_bench.report.compare import compare, format_comparison
    from android_bench.result import read_rows

    found = compare(read_rows(first), read_rows(second), threshold=values.threshold)
    _console().print(format_comparison(found))
    return 1 if any(item.worse for item in found) else 0


def _report(argv):
    values = flags.FlagValues()
    (folder,) = _parse(values, argv, "report FOLDER", 1, 1)
    from android_bench.bench import write_report

    print(f"Report: {write_report(folder).resolve()}")
    return 0


def _clean(argv):
    values = flags.FlagValues()
    _adb_flags(values)
    _parse(values, argv, "clean", 0, 0)
    from android_bench.bench import Request, servers
    from android_bench.lock import hold
    from android_bench.phones import choose, survey
    from android_bench.session import clean

    seen, failures = survey(servers(Request((), **_connection(values)))), 0
    for problem in seen.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for phone in choose(seen, list(values.device)):
        try:
            with hold(phone.serial):
                clean(phone.phone)
            print(f"{phone.label}: settings are back, our files are gone")
        except RuntimeError as error:
            failures += 1
            print(f"error: {phone.label}: {_harmless(error)}", file=sys.stderr)
    return 1 if failures else 0


def _host(argv):
    values = flags.FlagValues()
    flags.DEFINE_integer("threads", 1, "threads of the runtime", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("runs", 50, "runs at least", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("xnnpack", True, "use the XNNPACK delegate", flag_values=values)
    paths = _parse(values, argv, "host FILE.tflite [...]", 1)
    from android_bench.host import measure
    from android_bench.result import Result

    for path in paths:
        found = measure(path, threads=values.threads, runs=values.runs, xnnpack=values.xnnpack)
        print(found.into(Result(id=str(path), recipe="as given", device=f"host-{values.threads}thread")).to_json())
    return 0


COMMANDS = {
    "devices": _devices, "run": _run, "compare": _compare, "report": _report, "clean": _clean, "host": _host,
}  # fmt: skip


def _console():
    """Tables are not folded to 80 columns where nobody's terminal asks for it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 180)


def _connection(values) -> dict:
    device = tuple(values.device) if "device" in values else ()
    return {"device": device, "adb": values.adb, "adb_server": tuple(values.adb_server),
            "connect": tuple(values.connect)}  # fmt: skip


def _minutes(text: str) -> float:
    """Minutes of "30m", "90s" or "1h".

    >>> _minutes("90s"), _minutes("30m")
    (1.5, 30.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ValueError(f"Expected a time such as 30m, 90s or 1h. Received: {text!r}.")
    return float(match[1]) * {"s": 1 / 60, "m": 1, "h": 60}[match[2]]


def _parse(values, argv, usage, least, most=None):
    """Positional arguments of a command, its flags parsed into ``values``; exits after printing ``--help``."""
    if {"--help", "-h", "-help"} & set(argv):
        own = values.get_help().partition("absl.flags:")[0].partition(":\n")[2]
        own = re.sub(r"\n +\(default: '(\"\")?'\)", "", own)
        own = re.sub(r"(--(\[no\])?|,--)[a-z_]+", lambda flag: flag[0].replace("_", "-"), own)
        print(f"usage: android-bench {usage} [flags]" + (f"\n\nflags:\n{own.rstrip()}" if own.strip() else ""))
        raise SystemExit(0)
    end = argv.index("--") if "--" in argv else len(argv)  # what follows is names of files, as they are
    words = [re.sub(r"^--[^=]+", lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in argv[:end]]
    words = [f"--no{word[5:]}" if word.startswith("--no_") and word[5:] in values else word for word in words]
    try:
        rest = values(["android-bench", *words])[1:] + argv[end + 1 :]
    except flags.Error as error:
        raise ValueError(f"{error}. usage: android-bench {usage} [flags]") from None
    if len(rest) < least or (most is not None and len(rest) > most):
        raise ValueError(f"Expected: {usage}. Received: {rest}.")
    return rest


def _harmless(error) -> str:
    """A phone's words may be in it."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error))


@contextlib.contextmanager
def _signals():
    """Who is told to end (a CI that cancels, a terminal that is closed) cleans up as after Ctrl-C."""

    def stop(*_):
        raise KeyboardInterrupt

    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)
              if mine and signal.getsignal(number) == signal.SIG_DFL}  # nohup ignores SIGHUP  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv=None):
    """Entry point. Exit codes: 0 done, 1 something was not measured or got worse, 2 bad input, 130 stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"error: unknown command {argv[0]!r}. Known: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        with _signals():
            return COMMANDS[argv[0]](argv[1:])
    except SystemExit as stop:
        return stop.code
    except KeyboardInterrupt as stopped:
        print(f"stopped; the same command goes on from here{_harmless(stopped)}", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {_harmless(error)}", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2


if __name__ == "__main__":
    sys.exit(main())
