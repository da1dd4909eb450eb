"""``factorize``: one ``.keras`` file in, one whose kernels are products of smaller ones out."""

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required
from tfcompress.commands.models import budget, examples, keras_files, load, write_small

KINDS = ("svd", "tucker", "separable", "cp", "sparse")  # those of lowrank.options, which takes seconds to import
RULES = ("budget", "energy", "vbmf", "ebic")


def factorize_command(argv):
    values = flag_values()
    flags.DEFINE_string("target", None, "a share of the multiply-accumulates below 1, else their number; or "
                        "flops=0.4,bytes=0.3; or nonzeros=0.3; with --rank energy a share of it", flag_values=values)
    flags.DEFINE_string("data", None, ".npz with x (samples first) and, for --epochs, y (class numbers or one-hot)",
                        flag_values=values)
    flags.DEFINE_enum("rank", "budget", RULES, "what chooses ranks", flag_values=values)
    flags.DEFINE_list("kinds", "auto", f"auto, or some of {', '.join(KINDS)}", flag_values=values)
    flags.DEFINE_integer("epochs", 0, "of training on --data with Adam", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("teach", False, "--epochs learn from the model as it was, too", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "ranks are multiples of it", lower_bound=1, flag_values=values)
    flags.DEFINE_string("folder", None, "where the work is kept: a stopped run goes on there", flag_values=values)
    flags.DEFINE_string("output", None, "the .keras file to write", short_name="o", flag_values=values)
    (source,) = parse(values, argv, "factorize MODEL.keras --target 0.5 -o SMALL.keras", 1)
    output = keras_files(source, required(values, "output"))
    target = budget(required(values, "target")) if values.target or values.rank in ("budget", "energy") else None
    data = examples(values.data, labels=values.epochs and not values.teach) if values.data else None
    if (values.epochs or values.teach) and not (values.epochs and data):
        raise ValueError("Training needs --epochs and --data; --teach is a part of it. "
                         f"Received: --epochs {values.epochs}, --data {values.data}.")
    with quiet():
        from tfcompress.lowrank.factorize import factorize
        model = load(source, compiled=True)
        found = factorize(model, target, values.rank, data, kinds="auto" if values.kinds == ["auto"] else values.kinds,
                          fit=values.epochs, teacher=values.teach or None, round_to=values.round_to,
                          folder=values.folder)
    print(found)
    write_small(found.model, model, output, ())
