"""``inspect``, ``evaluate``, ``diff``, ``payoff``: what is in a ``.tflite`` file, and what it does."""

import sys

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required


def inspect_command(argv):
    values = flag_values()
    flags.DEFINE_bool("weights", False, "a line for every weight tensor", flag_values=values)
    (path,) = parse(values, argv, "inspect FILE.tflite", 1)
    from tfcompress.inspect import inspect
    from tfcompress.measure import storage
    print(inspect(path).text(each_weight=values.weights, storage=storage(path)), end="")


def evaluate_command(argv):
    values = flag_values()
    flags.DEFINE_string("data", None, ".npz with x (samples first), y (class numbers)", flag_values=values)
    flags.DEFINE_integer("threads", 1, "threads of the runtime", lower_bound=1, flag_values=values)
    (path,) = parse(values, argv, "evaluate FILE.tflite --data x.npz", 1)
    from tfcompress.arrays import read_npz
    data = read_npz(required(values, "data"))
    missing = {"x", "y"} - set(data)
    if missing:
        raise ValueError(f"{values.data} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    with quiet():                                        # LiteRT writes to stderr; errors come as such
        from tfcompress.measure import evaluate
        found = evaluate(path, data["x"], data["y"], threads=values.threads)
    print(f"accuracy {found.accuracy:.4f}   macro-F1 {found.macro_f1:.4f}   {found.samples} samples")
    for name, recall in found.recalls.items():
        print(f"  recall {name}: " + ("no sample" if recall is None else f"{recall:.4f}"))
    if absent := sum(recall is None for recall in found.recalls.values()):
        print(f"warning: y has no sample of {absent} of the model's {len(found.recalls)} classes: are these its data?",
              file=sys.stderr)


def diff_command(argv):
    values = flag_values()
    flags.DEFINE_string("data", None, ".npz of inputs: x, or by input name", flag_values=values)
    first, second = parse(values, argv, "diff A.tflite B.tflite --data x.npz", 2)
    from tfcompress.arrays import read_npz
    from tfcompress.diff import diff
    data = read_npz(required(values, "data"))
    print(diff(first, second, data["x"] if "x" in data else data))


def payoff_command(argv):
    values = flag_values()
    flags.DEFINE_string("device", "host", "host, or a phone's serial number", flag_values=values)
    paths = parse(values, argv, "payoff A.tflite B.tflite ...", None)
    from tfcompress.gains import payoff, table
    print(table(payoff({path: path for path in paths}, device=values.device)))
