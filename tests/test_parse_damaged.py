"""Cut, shuffled, bit-flipped, joined and mangled logs, and 50 MB of noise: never anything but a LogError."""

import math
import re
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from android_bench.logs.log_lines import LogError
from android_bench.logs.parse import parse_log
from android_bench.logs.run_eval import parse_run_eval
from android_bench.logs.saved_files import parse_op_profile, parse_op_profile_proto, parse_result_file

GOLDEN = Path(__file__).parent / "golden"
TOOL, PHONES = GOLDEN / "benchmark_model", GOLDEN / "phones"


@pytest.mark.parametrize("unit", [
    "\x1b[31mnoise\x1b[0m", "x\n", "count=1 ", "Replacing 1 node(s) with delegate (", "\r",
])  # fmt: skip
def test_50_mb_of_noise_take_little_more_than_their_two_that_are_read(unit):
    seconds = {}
    for characters in (200_000, 50_000_000):    # two millions are read: ten times as much, by its square a hundred
        text = unit * (characters // len(unit))
        start = time.process_time()
        log = parse_log(text, 1)
        seconds[characters] = max(time.process_time() - start, 0.1)
        assert log.failure
    assert seconds[50_000_000] < 40 * seconds[200_000]
    assert f"the log has {len(text):,} characters" in log.note


TEXTS = [path.read_text() for path in sorted([*TOOL.glob("*.txt"), *TOOL.glob("*.csv"), *PHONES.glob("*.txt")])]
TEXTS = [text for text in TEXTS if len(text) < 8000]
SAVED = [(TOOL / name).read_bytes() for name in ("result_file.pb", "op_profile_op.pb")]
HOSTILE = ["1e999", "-5", "nan", "9" * 5000, "1..2", "", "1e-400", "٣", "0", "%s{0}", "\x00", "]" * 50, "\x1b["]


def _cut(text, other, random):
    return text[random.randrange(len(text)) :][: random.randrange(len(text))]


def _shuffled(text, other, random):
    lines = text.splitlines(keepends=True)
    random.shuffle(lines)
    return "".join(lines)


def _flipped(text, other, random):
    data = bytearray(text, "utf-8")
    for _ in range(random.randrange(1, 40)):
        data[random.randrange(len(data))] = random.randrange(256)
    return data.decode(errors="replace")


def _joined(text, other, random):
    at = random.randrange(len(text))
    return text[:at] + other[random.randrange(len(other)) :] + text[at:]


def _mangled(text, other, random):
    return re.sub(r"\d+", lambda found: random.choice(HOSTILE) if random.random() < 0.1 else found[0], text)


def _sane(log, exit_code):
    for holder in (log, log.warmup, log.timed):
        for name, value in vars(holder).items() if holder else ():
            if name.endswith(("_us", "_mb", "count")) and value is not None:
                assert math.isfinite(value) and value >= 0, name
    assert log.failure if exit_code else True
    assert not log.failure or log.timed is None is log.ran_on
    assert all(text is None or text.isprintable() for text in (log.note, log.failure, log.ran_on, *log.unconsumed))


def _quietly(parse, damaged):
    try:
        return parse(damaged)
    except LogError:
        return None


@pytest.mark.parametrize("damage", [_cut, _shuffled, _flipped, _joined, _mangled])
def test_damaged_logs(damage):
    @settings(max_examples=2100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**64), st.sampled_from([None, 0, 1, 134, -9]))
    def check(seed, exit_code):
        random = Random(seed)
        text = damage(random.choice(TEXTS), random.choice(TEXTS), random)
        _sane(parse_log(text, exit_code), exit_code)
        _quietly(parse_run_eval, text)
        _quietly(parse_op_profile, text)
        data = bytearray(random.choice(SAVED))
        data[random.randrange(len(data))] = random.randrange(256)
        if log := _quietly(parse_result_file, bytes(data[: random.randrange(len(data) + 1)])):
            _sane(log, None)
        _quietly(parse_op_profile_proto, bytes(data))

    check()
