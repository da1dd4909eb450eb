"""``train``: your own training script as several workers."""

from absl import flags

from tfcompress.commands.flags import flag_values, parse
from tfcompress.launch import train

MORE = """SCRIPT.py: your training, which builds its model under tfcompress.distribute.strategy().scope(). Its arguments
follow it. One machine with several GPUs needs no workers: that strategy uses them all."""


def train_command(argv):
    values = flag_values()
    flags.DEFINE_integer("workers", 2, "processes on this machine", lower_bound=1, flag_values=values)
    flags.DEFINE_list("hosts", [], "instead, one worker on each of these machines, a:12345,b:12345: call the command "
                      "on each, with its --index", flag_values=values)
    flags.DEFINE_integer("index", None, "which of --hosts this machine is, from 0", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("restarts", 0, "so many times all workers are started again after one failed: the script goes "
                         "on where its tfcompress.distribute.Backup is", lower_bound=0, flag_values=values)
    own, script = _apart(argv)
    (name,) = parse(values, [*own, *script[:1]], "train --workers 2 SCRIPT.py [ITS ARGUMENTS]", 1, MORE)
    if values.hosts and (values["workers"].present or values.index is None):
        raise ValueError("--hosts goes with --index and without --workers: each machine runs one worker.")
    if values.index is not None and not values.hosts:
        raise ValueError("--index says which of --hosts this machine is. Received: no --hosts.")
    code = train([name, *script[1:]], values.workers, hosts=values.hosts, index=values.index or 0,
                 restarts=values.restarts)
    raise SystemExit(code)


def _apart(argv):
    """``(our flags, the script and its arguments)``: what follows the script is its own. Our flags all have values."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if "=" in argv[at] or argv[at].lstrip("-") in ("h", "help") else 2
    return argv[:at], argv[at:]
