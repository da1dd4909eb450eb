"""``shrink``, ``prune-filters``: one ``.keras`` file in, a smaller one out."""

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required
from tfcompress.commands.models import budget, examples, keras_files, load, write_small

CRITERIA = ("random, magnitude, l1_norm, l2_norm, geometric_median, bn_scale, slope, slope_both, taylor, taylor2, "
            "information_gain, relevance, behaviour")  # those of pruning.criteria, which takes seconds to import


def shrink_command(argv):
    values = flag_values()
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "keep a multiple of so many channels", lower_bound=1, flag_values=values)
    (source,) = parse(values, argv, "shrink MODEL.keras -o SMALL.keras", 1)
    output = keras_files(source, required(values, "output"))
    with quiet():
        from tfcompress.pruning.shrink import fenced_layers, shrink
        model = load(source)
        small = shrink(model, round_to=values.round_to)
    write_small(small, model, output, fenced_layers(model))


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
    flags.DEFINE_bool("teach", False, "--epochs learn from the model as it was, too", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "keep a multiple of so many channels", lower_bound=1, flag_values=values)
    flags.DEFINE_string("device", "host", "host, or a phone's serial number", flag_values=values)
    flags.DEFINE_string("folder", None, "where rounds are kept: a stopped run goes on there", flag_values=values)
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    (source,) = parse(values, argv, "prune-filters MODEL.keras --data x.npz --target 0.5 -o SMALL.keras", 1)
    output, target = keras_files(source, required(values, "output")), budget(required(values, "target"))
    data = examples(required(values, "data"))
    with quiet():
        from tfcompress.budget import prune_filters
        model = load(source, compiled=True)
        found = prune_filters(model, data, target, values.metric, criterion=values.criterion,
                              rounds=values.rounds, round_to=values.round_to, device=values.device,
                              folder=values.folder, fit=values.epochs, teacher=values.teach or None,
                              per=None if values.per == "none" else values.per)
    print(found)
    write_small(found.model, model, output, found.fenced)
