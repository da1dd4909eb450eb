"""What every command shares: its flags read, ``--help``, TensorFlow kept quiet."""

import contextlib
import os
import sys
import warnings

from absl import flags


def flag_values():
    """An empty set of flags: each command has its own, none are global."""
    return flags.FlagValues()


def required(values, name):
    """The value of a flag that has no default; ValueError where it was not given."""
    if not values[name].value:
        raise ValueError(f"--{name} is needed. Call the command with --help to see its flags.")
    return values[name].value


def parse(values, argv, usage, count, more=""):
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
def quiet():
    """TensorFlow's start-up chatter goes nowhere: it is written by C++ before any log level is read.

    Warnings that are meant for users (``UserWarning``) are told behind it, each once.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    with warnings.catch_warnings(record=True) as caught:
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
            for message in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
                print(f"warning: {message}", file=sys.stderr)
