"""``android-bench COMMAND ...``: measure ``.tflite`` files on devices. Today: this computer."""

import sys

from absl import flags

from android_bench.host import measure
from android_bench.result import Result

USAGE = """android-bench: latency, CPU and memory of .tflite files, one JSON row a file

  android-bench host FILE.tflite [...]   this computer as the device
      --threads N (1)   --runs N (50)   --noxnnpack

Phones over adb are not supported yet."""


def main(argv=None):
    """Entry point. Exit codes: 0 done, 1 a file could not be measured, 2 bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or {"--help", "-h", "help"} & set(argv):
        print(USAGE)
        return 0 if argv else 2
    values = flags.FlagValues()
    flags.DEFINE_integer("threads", 1, "threads of the runtime", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("runs", 50, "runs at least", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("xnnpack", True, "use the XNNPACK delegate", flag_values=values)
    try:
        command, *paths = values(["android-bench", *argv])[1:]
        if command != "host" or not paths:
            raise ValueError(f"Expected: host FILE.tflite [...]. Received: {argv}.")
        for path in paths:
            found = measure(path, threads=values.threads, runs=values.runs, xnnpack=values.xnnpack)
            print(found.into(Result(id=str(path), recipe="as given", device=f"host-{values.threads}thread")).to_json())
    except (ValueError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
