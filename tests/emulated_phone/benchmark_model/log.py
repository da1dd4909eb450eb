"""What the tool says: INFO and WARN on stdout, ERROR and FATAL on stderr, in the order of events."""

import os
import sys


class Stop(Exception):
    """The tool gives up: the text is its last ERROR line; the exit code is 1."""


class Abort(Exception):
    """A FATAL line, then SIGABRT: the shell sees 134."""


def info(text: str) -> None:
    print(f"INFO: {text}", flush=True)


def warn(text: str) -> None:
    print(f"WARN: {text}", flush=True)


def error(text: str) -> None:
    """Of the tool, or of the runtime: both go to stderr."""
    print(f"ERROR: {text}", file=sys.stderr, flush=True)


def runtime(text: str, severity: str = "INFO") -> None:
    """A line of LiteRT itself. VERBOSE ones are compiled into Android's builds only."""
    if severity != "VERBOSE" or os.environ.get("EMULATED_VERBOSE") == "1":
        print(f"{severity}: {text}", file=sys.stderr, flush=True)
