"""``tfcompress COMMAND ...``: parses flags, calls one function, prints what it gives. No logic lives here."""

import contextlib
import os
import sys
from pathlib import Path

from absl import flags

USAGE = """tfcompress: from a Keras model to a small, fast, verified .tflite

  tfcompress convert MODEL -o FILE.tflite    convert, and check the result on both runtimes
  tfcompress inspect FILE.tflite             ops, dtypes, bytes, zeros, levels, MACs, GPU refusals
  tfcompress evaluate FILE.tflite --data x.npz   accuracy, macro-F1 and recalls of the file itself
  tfcompress diff A.tflite B.tflite --data x.npz per-layer SNR: where accuracy is lost
  tfcompress shrink MODEL.keras -o SMALL.keras   without the filters that pruning has zeroed
  tfcompress prune-filters MODEL.keras --data x.npz --target 0.5 -o SMALL.keras   filters removed to meet a budget
  tfcompress payoff A.tflite B.tflite ...    bytes, gzip, MACs, measured time: what B saves, if anything
  tfcompress study PRESET                    the 17 + 1 models, measured, and their report
  tfcompress study MODEL.keras --data x.npz  the same for your own trained classifier
  tfcompress report FOLDER --phones RESULTS  a study's report again, with phones as more devices
  tfcompress data PRESET -o test.npz         a preset's test data, for android-bench run --eval

'tfcompress COMMAND --help' shows a command's flags."""


CRITERIA = ("random, magnitude, l1_norm, l2_norm, geometric_median, bn_scale, slope, slope_both, taylor, taylor2, "
            "information_gain, relevance, behaviour")  # those of pruning.criteria, which takes seconds to import


def _flag_values():
    return flags.FlagValues()


def _convert(argv):
    values = _flag_values()
    flags.DEFINE_string("precision", "float32", "float32, float16, dynamic, int8, int16x8 or int4", flag_values=values)
    flags.DEFINE_string("calibration", None, ".npz of inputs by name, for int8 and int16x8", flag_values=values)
    flags.DEFINE_string("output", None, "the .tflite file to write (default: beside MODEL)", short_name="o",
                        flag_values=values)
    flags.DEFINE_enum("io", "float", ["float", "int8"], "type of inputs and outputs", flag_values=values)
    flags.DEFINE_enum("backend", "litert", ["litert", "tflite_converter"], "who quantizes", flag_values=values)
    flags.DEFINE_multi_string("keep_float", [], "regular expression on layers that stay float", flag_values=values)
    flags.DEFINE_integer("static_batch", None, "fix the batch size in the file", flag_values=values)
    (source,) = _parse(values, argv, "convert MODEL", 1, "MODEL: .keras, .h5, SavedModel folder or float .tflite.")
    output = Path(values.output or f"{Path(source).with_suffix('')}_{values.precision}.tflite")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OSError(f"Can't write {output}: the folder {output.parent} does not exist or is read-only.")
    from tfcompress.convert import convert
    if Path(source).exists():
        with _quiet():
            import keras  # noqa: F401
    file = convert(source, values.precision, values.calibration, io=values.io, backend=values.backend,
                   keep_float=tuple(values.keep_float), static_batch=values.static_batch)
    file.save(output)
    print(f"{output}: {file.size:,} bytes, {file.precision}")
    print(file.gate)


def _inspect(argv):
    values = _flag_values()
    flags.DEFINE_bool("weights", False, "a line for every weight tensor", flag_values=values)
    (path,) = _parse(values, argv, "inspect FILE.tflite", 1)
    from tfcompress.inspect import inspect
    print(inspect(path).text(each_weight=values.weights), end="")


def _evaluate(argv):
    values = _flag_values()
    flags.DEFINE_string("data", None, ".npz with x (samples first), y (class numbers)", flag_values=values)
    flags.DEFINE_integer("threads", 1, "threads of the runtime", lower_bound=1, flag_values=values)
    (path,) = _parse(values, argv, "evaluate FILE.tflite --data x.npz", 1)
    from tfcompress.arrays import read_npz
    from tfcompress.measure import evaluate
    data = read_npz(_required(values, "data"))
    missing = {"x", "y"} - set(data)
    if missing:
        raise ValueError(f"{values.data} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    found = evaluate(path, data["x"], data["y"], threads=values.threads)
    print(f"accuracy {found.accuracy:.4f}   macro-F1 {found.macro_f1:.4f}   {found.samples} samples")
    for name, recall in found.recalls.items():
        print(f"  recall {name}: " + ("no sample" if recall is None else f"{recall:.4f}"))


def _diff(argv):
    values = _flag_values()
    flags.DEFINE_string("data", None, ".npz of inputs: x, or by input name", flag_values=values)
    first, second = _parse(values, argv, "diff A.tflite B.tflite --data x.npz", 2)
    from tfcompress.arrays import read_npz
    from tfcompress.diff import diff
    data = read_npz(_required(values, "data"))
    print(diff(first, second, data["x"] if "x" in data else data))


def _shrink(argv):
    values = _flag_values()
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "keep a multiple of so many channels", lower_bound=1, flag_values=values)
    (source,) = _parse(values, argv, "shrink MODEL.keras -o SMALL.keras", 1)
    output = _keras_files(source, values)
    with _quiet():
        from tfcompress.pruning.shrink import fenced_layers, shrink
        model = _load(source)
        small = shrink(model, round_to=values.round_to)
    _write_small(small, model, output, fenced_layers(model))


def _prune_filters(argv):
    values = _flag_values()
    flags.DEFINE_string("data", None, ".npz with x (samples first), y (class numbers or one-hot)", flag_values=values)
    flags.DEFINE_string("target", None, "a share of the model's own amount below 1, else the amount; two budgets: "
                        "flops=0.4,bytes=0.3", flag_values=values)
    flags.DEFINE_string("metric", "flops", "flops, bytes or latency_us (measured on --device)", flag_values=values)
    flags.DEFINE_string("criterion", "taylor", f"what ranks the filters: {CRITERIA}", flag_values=values)
    flags.DEFINE_enum("per", "auto", ["auto", "budget", "flops", "bytes", "latency_us", "none"],
                      "what scores are divided by", flag_values=values)
    flags.DEFINE_integer("rounds", 5, "of removal and training", flag_values=values)
    flags.DEFINE_integer("epochs", 1, "of training on --data with Adam, a round", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("round_to", 1, "keep a multiple of so many channels", lower_bound=1, flag_values=values)
    flags.DEFINE_string("device", "host", "host, or a phone's serial number", flag_values=values)
    flags.DEFINE_string("folder", None, "where rounds are kept: a stopped run goes on there", flag_values=values)
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    (source,) = _parse(values, argv, "prune-filters MODEL.keras --data x.npz --target 0.5 -o SMALL.keras", 1)
    output, target = _keras_files(source, values), _budget(_required(values, "target"))
    from tfcompress.arrays import read_npz
    data = read_npz(_required(values, "data"))
    if missing := {"x", "y"} - set(data):
        raise ValueError(f"{values.data} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    with _quiet():
        from tfcompress.budget import prune_filters
        model = _load(source, compiled=True)
        found = prune_filters(model, (data["x"], data["y"]), target, values.metric, criterion=values.criterion,
                              rounds=values.rounds, round_to=values.round_to, device=values.device,
                              folder=values.folder, fit=values.epochs,
                              per=None if values.per == "none" else values.per)
    print(found)
    _write_small(found.model, model, output, found.fenced)


def _budget(text):
    """``"0.5"`` as a number, ``"flops=0.4,bytes=0.3"`` as a dict."""
    try:
        parts = [part.partition("=") for part in text.split(",")]
        return {name: float(number) for name, _, number in parts} if "=" in text else float(text)
    except ValueError:
        raise ValueError(f"--target is a number, or flops=0.4,bytes=0.3. Received: {text!r}.") from None


def _keras_files(source, values):
    """The --output of a command that reads one .keras file and writes another, both checked before any work."""
    output = Path(_required(values, "output"))
    if output.suffix != ".keras" or not output.parent.is_dir():
        raise ValueError(f"--output is a .keras file in a folder that exists. Received: {output}.")
    if not Path(source).is_file():
        raise ValueError(f"No .keras file at {source!r}.")
    if Path(source).suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"Filters are removed from a Keras model, .keras or .h5. Received: {source!r}.")
    return output


def _load(source, compiled=False):
    import keras
    try:
        return keras.models.load_model(source, compile=compiled)
    except TypeError as error:                           # a class or a loss of the user's own
        raise ValueError(f"{source} can't be loaded here: {str(error).splitlines()[0]} Call it from Python, where your "
                         "own classes and losses are known.") from None


def _write_small(small, model, output, fenced):
    part = output.with_name(f"part_{output.name}")
    small.save(part)
    part.rename(output)
    print(f"{output}: {small.count_params():,} parameters of {model.count_params():,}")
    for path, reason in fenced:
        print(f"  not followed: {path}: {reason}")


def _payoff(argv):
    values = _flag_values()
    flags.DEFINE_string("device", "host", "host, or a phone's serial number", flag_values=values)
    paths = _parse(values, argv, "payoff A.tflite B.tflite ...", None)
    from tfcompress.gains import payoff, table
    print(table(payoff({path: path for path in paths}, device=values.device)))


def _study(argv):
    values = _flag_values()
    flags.DEFINE_string("output", None, "its folder (default: runs/PRESET)", short_name="o", flag_values=values)
    flags.DEFINE_integer("workers", 1, "processes on this machine", lower_bound=1, flag_values=values)
    flags.DEFINE_string("ray", None, "address of a Ray cluster, or 'local'", flag_values=values)
    flags.DEFINE_list("devices", ["host-1thread"], "host-1thread, host-allthreads", flag_values=values)
    flags.DEFINE_string("data", None, "your data, .npz: x_train, y_train, x_val, y_val, x_test, y_test (class numbers)",
                        flag_values=values)
    flags.DEFINE_integer("epochs", 3, "of fine-tuning, for your own model", lower_bound=1, flag_values=values)
    (study,) = _parse(values, argv, "study PRESET | study MODEL.keras --data x.npz", 1,
                      "PRESET: digits, ecg, ecg_full, ecg_resnet, tiny. MODEL.keras: your own trained classifier.")
    with _quiet():
        from tfcompress.study.presets import own
        from tfcompress.study.run import run_study
    given = [name for name in ("data", "epochs") if values[name].present]
    if given and not study.endswith(".keras"):
        raise ValueError(f"--{given[0]} goes with a MODEL.keras of your own. Received: {study!r}, a preset.")
    if study.endswith(".keras"):
        study = own(study, _required(values, "data"), values.epochs)
    page = run_study(study, values.output, workers=values.workers, ray=values.ray, devices=tuple(values.devices))
    print(f"Report: {page.resolve()}")


def _report(argv):
    values = _flag_values()
    flags.DEFINE_list("phones", [], "results folders of android-bench run on the study's models", flag_values=values)
    (folder,) = _parse(values, argv, "report FOLDER", 1, "FOLDER: of a study.")
    with _quiet():
        from tfcompress.study.run import report
    print(f"Report: {report(folder, values.phones).resolve()}")


def _data(argv):
    values = _flag_values()
    flags.DEFINE_string("output", None, "the .npz file to write", short_name="o", flag_values=values)
    flags.DEFINE_integer("limit", None, "so many samples, picked at random", lower_bound=1, flag_values=values)
    (name,) = _parse(values, argv, "data PRESET -o test.npz", 1, "PRESET: digits, ecg, ecg_full, ecg_resnet.")
    output = _required(values, "output")
    with _quiet():
        from tfcompress.study.cell import write_test_data
    print(f"{output}: {write_test_data(name, output, values.limit)} samples")


COMMANDS = {"convert": _convert, "inspect": _inspect, "evaluate": _evaluate, "diff": _diff, "shrink": _shrink,
            "prune-filters": _prune_filters, "payoff": _payoff, "study": _study, "report": _report, "data": _data}


def _required(values, name):
    if not values[name].value:
        raise ValueError(f"--{name} is needed. Call the command with --help to see its flags.")
    return values[name].value


def _parse(values, argv, usage, count, more=""):
    """Positional arguments of a command, its flags parsed into ``values``; exits after printing ``--help``."""
    if {"--help", "-h", "-help"} & set(argv):
        own = values.get_help().split("\nabsl.flags:")[0].split(":\n", 1)[1]
        print(f"usage: tfcompress {usage} [flags]\n{more}\n\nflags:\n{own.rstrip()}")
        raise SystemExit(0)
    try:
        rest = values(["tfcompress", *argv])[1:]
    except flags.Error as error:
        raise ValueError(f"{error}. usage: tfcompress {usage} [flags]") from None
    if len(rest) != count and (count or not rest):
        raise ValueError(f"Expected {count or 'some'} argument(s), received {rest}. usage: tfcompress {usage} [flags]")
    return rest


@contextlib.contextmanager
def _quiet():
    """TensorFlow's start-up chatter goes nowhere: it is written by C++ before any log level is read."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main(argv=None):
    """Entry point. Exit codes: 0 done, 1 the work failed, 2 bad input, 130 stopped by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"error: unknown command {argv[0]!r}. Known: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not Path("/dev/nvidia0").exists():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")      # else TensorFlow reports that it found no GPU
    try:
        COMMANDS[argv[0]](argv[1:])
    except SystemExit as stop:
        return stop.code
    except KeyboardInterrupt:
        print("stopped; studies, and what keeps a --folder, go on with the same command", file=sys.stderr)
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
