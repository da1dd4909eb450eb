"""``tfcompress COMMAND ...``: finds the command, and turns what it raises into one line and an exit code."""

import importlib.metadata
import logging
import os
import sys
from pathlib import Path

from tfcompress.commands.convert import convert_command
from tfcompress.commands.factors import factorize_command
from tfcompress.commands.files import diff_command, evaluate_command, inspect_command, payoff_command
from tfcompress.commands.filters import prune_filters_command, shrink_command
from tfcompress.commands.mixed import mixed_command
from tfcompress.commands.one_click import one_click_command
from tfcompress.commands.run import run_command
from tfcompress.commands.storage import pack_command, unpack_command
from tfcompress.commands.students import students_command
from tfcompress.commands.study import add_command, data_command, report_command, study_command
from tfcompress.commands.train import train_command

USAGE = """tfcompress: from a Keras model to a small, fast, verified .tflite

  tfcompress one-click MODEL                 small or fast in seconds, without data: file, packed file, report
  tfcompress convert MODEL -o FILE.tflite    convert, and check the result on both runtimes
  tfcompress inspect FILE.tflite             ops, dtypes, bytes, zeros, levels, MACs, GPU refusals
  tfcompress evaluate FILE.tflite --data x.npz   accuracy, macro-F1 and recalls of the file itself
  tfcompress diff A.tflite B.tflite --data x.npz per-layer SNR: where accuracy is lost
  tfcompress shrink MODEL.keras -o SMALL.keras   without the filters that pruning has zeroed
  tfcompress prune-filters MODEL.keras --data x.npz --target 0.5 -o SMALL.keras   filters removed to meet a budget
  tfcompress factorize MODEL.keras --target 0.5 -o SMALL.keras   kernels as products of smaller ones, in a budget
  tfcompress mixed MODEL --data x.npz --bytes 20000 -o SMALL.tflite   bits by layer, within bytes and points lost
  tfcompress payoff A.tflite B.tflite ...    bytes, gzip, MACs, measured time: what B saves, if anything
  tfcompress pack MODEL.tflite -o M.tfcp     the fewest bytes, lossless; tfcompress unpack M.tfcp -o MODEL.tflite
  tfcompress train --workers 2 SCRIPT.py     your own training on several processes or machines
  tfcompress run JOB.yaml                    a job of five lines: stages that pay, a checked file, report
  tfcompress study PRESET                    the 17 + 1 models, measured, and their report
  tfcompress study MODEL.keras --data x.npz  the same for your own trained classifier
  tfcompress students PRESET                 students by depth and by width, with a teacher and without, report
  tfcompress report FOLDER --phones RESULTS  a study's report again, with phones as more devices
  tfcompress add FOLDER ID=FILE.tflite       files of your own join a study's report
  tfcompress data PRESET -o test.npz         a preset's test data, for android-bench run --eval

'tfcompress COMMAND --help' shows a command's flags."""

COMMANDS = {
    "convert": convert_command,
    "one-click": one_click_command,
    "inspect": inspect_command,
    "evaluate": evaluate_command,
    "diff": diff_command,
    "shrink": shrink_command,
    "prune-filters": prune_filters_command,
    "factorize": factorize_command,
    "mixed": mixed_command,
    "payoff": payoff_command,
    "pack": pack_command,
    "unpack": unpack_command,
    "run": run_command,
    "study": study_command,
    "students": students_command,
    "report": report_command,
    "add": add_command,
    "train": train_command,
    "data": data_command,
}


def main(argv=None):
    """Entry point. Exit codes: 0 done, 1 the work failed, 2 bad input, 130 stopped by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"tfcompress {importlib.metadata.version('tfcompress')}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"error: unknown command {argv[0]!r}. Known: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)      # else it warns of retracing where many nets are run
    if not Path("/dev/nvidia0").exists():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")      # else TensorFlow reports that it found no GPU
    try:
        COMMANDS[argv[0]](argv[1:])
    except SystemExit as stop:
        return stop.code
    except KeyboardInterrupt:
        keeps = argv[0] in ("run", "study", "students") or any(one.lstrip("-").startswith("folder") for one in argv)
        print("stopped" + "; the same command goes on from here" * keeps, file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
