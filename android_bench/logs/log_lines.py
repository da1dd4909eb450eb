"""A device's raw text -> the messages in it: no line ends of old shells, colours, logcat columns or level words."""

import math
import re
from typing import NamedTuple

LONGEST_LOG = 2_000_000  # characters; a log with an op profile of 2,000 nodes has 1,000,000
LONGEST_LINE = 8192

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[@-~]")
_LOGCAT = re.compile(
    r"(?:(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,9} +)?"
    r"(?:\d{1,9} +\d{1,9} +([VDIWEF]) +[^\s:(]{1,60} *:|([VDIWEF])/[^\s:(]{1,60} *\( *\d{1,9}\):) ?"
)
_LOGCAT_LEVELS = {"W": "WARN", "E": "ERROR", "F": "FATAL", "V": "VERBOSE"}
_LEVEL = re.compile(r"(INFO|WARN|WARNING|ERROR|FATAL|VERBOSE|DEBUG): ?")
_SOURCE_FILE = re.compile(r"\[[\w./-]{1,200}:\d{1,6}\] ?")  # LiteRT 2: "[litert/tools/benchmark_litert_model.h:73] "
_GLUED = re.compile(r"INFO: (?=count=\d|Inference timings in us|Initialized session)")  # behind a driver's own output
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")


class LogError(ValueError):
    """What came is no text of a benchmark tool and can't be read as one."""


class Line(NamedTuple):
    """One line: its level ("INFO", "ERROR", ... or "" where none is printed) and what it says."""

    level: str
    message: str


def read_lines(text: str) -> tuple[list[Line], str | None]:
    """The lines of a log that say something, and a note if it was too long to be read whole (else None).

    >>> read_lines("07-14 13:14:53.603 228 229 E tflite  : Benchmarking failed.\\r\\n")
    ([Line(level='ERROR', message='Benchmarking failed.')], None)

    Raises:
        LogError: not a str.
    """
    if not isinstance(text, str):
        raise LogError(f"A log is a str: decode bytes with errors='replace'. Received: {type(text).__name__}")
    note = None
    if len(text) > LONGEST_LOG:
        half = LONGEST_LOG // 2
        note = f"the log has {len(text):,} characters: only the first and the last {half:,} were read"
        text = text[:half] + "\n" + text[-half:]
    lines = (_line(raw[:LONGEST_LINE]) for raw in text.split("\n"))
    return [line for line in lines if line.message], note


def number(text: str) -> float | None:
    """A printed number that is finite and not negative; None for anything else.

    >>> number("2.20029e+06"), number("-nan"), number("1e999")
    (2200290.0, None, None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def find_number(pattern: str, body: str) -> float | None:
    """The first group of a pattern as a number, or None; `^` and `$` match at each line of `body`.

    >>> find_number(r"^Init: (\\S+)", "STARTING!\\nInit: 412, no stats: 7")
    412.0
    """
    found = re.search(pattern, body, re.M)
    return number(found[1].rstrip(",")) if found else None


def printable(text: str, longest: int = 300) -> str:
    """Device text that is safe in a table or on a terminal: no control characters, not longer than `longest`.

    >>> printable("a\\x07b\\tc")
    'a b c'
    """
    text = "".join(char if char.isprintable() else " " for char in text[: longest + 1]).strip()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _line(raw: str) -> Line:
    if "\x1b" in raw:
        raw = _COLOURS.sub("", raw)
    raw, level = raw.rstrip(), ""
    if found := _LOGCAT.match(raw):
        raw, level = raw[found.end() :], _LOGCAT_LEVELS.get(found[1] or found[2], "INFO")
    if found := _LEVEL.match(raw) or _GLUED.search(raw):
        level = found[1] if found.re is _LEVEL else "INFO"
        raw = raw[found.end() :]
    if found := _SOURCE_FILE.match(raw):
        raw = raw[found.end() :]
    return Line("WARN" if level == "WARNING" else level, raw)
