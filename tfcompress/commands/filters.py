"""``shrink``, ``prune-filters``: one ``.keras`` file in, a smaller one out."""

from pathlib import Path

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required

CRITERIA = ("random, magnitude, l1_norm, l2_norm, geometric_median, bn_scale, slope, slope_both, taylor, taylor2, "
            "information_gain, relevance, behaviour")  # those of pruning.criteria, which takes seconds to import


def shrink_command(argv):
    values = flag_values()
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "keep a multiple of so many channels", lower_bound=1, flag_values=values)
    (source,) = parse(values, argv, "shrink MODEL.keras -o SMALL.keras", 1)
    output = _keras_files(source, values)
    with quiet():
        from tfcompress.pruning.shrink import fenced_layers, shrink
        model = _load(source)
        small = shrink(model, round_to=values.round_to)
    _write_small(small, model, output, fenced_layers(model))


def prune_filters_command(argv):
    values = flag_values()
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
    (source,) = parse(values, argv, "prune-filters MODEL.keras --data x.npz --target 0.5 -o SMALL.keras", 1)
    output, target = _keras_files(source, values), _budget(required(values, "target"))
    from tfcompress.arrays import read_npz
    data = read_npz(required(values, "data"))
    if missing := {"x", "y"} - set(data):
        raise ValueError(f"{values.data} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    with quiet():
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
    output = Path(required(values, "output"))
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
