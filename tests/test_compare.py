"""Two sets of rows against each other: known answers, coverage of the interval, nothing dropped."""

import numpy as np
import pytest
from bench_rows import GALAXY, PIXEL, make_rows
from rich.console import Console

from android_bench.report.compare import compare, format_comparison
from android_bench.result import Result
from android_bench.stats import bootstrap_ratio


def row(times, *, key="p50_us", **fields):
    """One job with these medians of its repetitions."""
    extra = fields.pop("facts", {})
    fields = {"id": "Q8", "recipe": "int8", "device": "Pixel 7", "threads": 1, "delegate": "xnnpack"} | fields
    middle = {f"latency_{key}": float(np.median(times))} if len(times) else {}
    return Result(**fields, **middle, facts={"repetitions": [{key: time} for time in times]} | extra)


def only(a, b, quantity="latency", **options):
    found = [item for item in compare([a], [b], **options) if item.quantity == quantity]
    assert len(found) == 1
    return found[0]


def test_identical_rows_are_the_same():
    rows = make_rows()
    found = compare(rows, rows)
    assert [item.verdict for item in found if item.quantity == "latency"].count("same") == len(rows) - 1
    assert {item.verdict for item in found} == {"same", "not measured"}  # the crashed one
    again = [row.replace(facts=row.facts | {"job_seed": 8}) for row in rows]
    assert {item.verdict for item in compare(rows, again) if item.device == "Pixel 7"} == {"same"}


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ([120.1, 120.4, 119.8, 120.0, 120.2], "slower"),
        ([80.1, 80.4, 79.8, 80.0, 80.2], "faster"),
        ([100.3, 100.1, 99.9, 100.2, 100.0], "same"),
        ([90.0, 118.0, 104.0, 99.0, 111.0], "uncertain"),
        ([104.5, 105.5, 105.0, 104.8, 105.2], "uncertain"),  # about the threshold itself
        ([120.0, 121.0], "not enough repetitions"),
        ([], "not measured"),
    ],
)
def test_verdicts(b, verdict):
    found = only(row([100.1, 100.4, 99.8, 100.0, 100.2]), row(b))
    assert found.verdict == verdict and found.worse == (verdict == "slower")
    assert (found.low is None) == (verdict in ("not enough repetitions", "not measured"))


def test_a_planted_slowdown_is_found_and_its_interval_covers_it():
    random = np.random.default_rng(11)
    verdicts, covered = [], 0
    for _ in range(300):
        a = (100 * (1 + 0.02 * random.standard_normal(5))).tolist()
        b = (120 * (1 + 0.02 * random.standard_normal(5))).tolist()
        found = only(row(a), row(b))
        verdicts.append(found.verdict)
        covered += found.low <= 1.2 <= found.high
    assert covered >= 0.95 * 300
    assert verdicts.count("slower") >= 0.95 * 300 and set(verdicts) <= {"slower", "uncertain"}


def test_no_change_is_hardly_ever_called_one():
    random = np.random.default_rng(12)
    draw = lambda: (100 * (1 + 0.03 * random.standard_normal(5))).tolist()  # noqa: E731
    verdicts = [only(row(draw()), row(draw())).verdict for _ in range(200)]
    assert verdicts.count("slower") + verdicts.count("faster") <= 2


def test_the_interval_is_the_same_every_time_and_moves_with_the_seed():
    a, b = row([100.0, 103.5, 98.0, 101.0]), row([110.0, 115.5, 108.0, 112.0])
    assert only(a, b) == only(a, b)
    assert only(a, b).high != only(a, b, seed=1).high


def test_whole_microseconds_are_not_taken_for_exact():
    found = only(row([8.0] * 5), row([9.0] * 5))
    assert found.ratio == 1.125 and found.low < 1.125 < found.high


@pytest.mark.parametrize("true", [5.48, 8.45, 15.47])
def test_one_percent_across_a_whole_microsecond_is_no_verdict(true):
    random = np.random.default_rng(13)
    for count in (3, 5, 10):
        a, b = ([float(round(value * (1 + 0.002 * random.standard_normal()))) for _ in range(count)]
                for value in (true, 1.012 * true))  # fmt: skip
        assert not only(row(a), row(b)).worse, (a, b)
    assert only(row([16.0] * 3), row([32.0] * 3)).verdict == "slower"


def test_times_below_the_tools_steps_are_compared_by_their_means():
    a = row([0.0] * 3, facts={"repetitions": [{"p50_us": 0.0, "mean_us": m} for m in (0.150, 0.151, 0.152)]})
    b = row([0.0] * 3, facts={"repetitions": [{"p50_us": 0.0, "mean_us": m} for m in (0.200, 0.201, 0.202)]})
    found = only(a, b)
    assert found.verdict == "slower" and found.why.startswith("mean 0.151 to 0.201 us")
    assert only(row([0.0] * 3), row([0.0] * 3, seed=None, recipe="x")).verdict == "not measured"


def test_rows_of_one_side_are_listed():
    both, a, b = row([1.5] * 3), row([1.5] * 3, threads=2), row([1.5] * 3, threads=4)
    found = compare([both, a], [both, b])
    assert [(item.threads, item.verdict, item.worse) for item in found] == [
        (1, "same", False), (2, "only in A", True), (4, "only in B", False)
    ]  # fmt: skip


@pytest.mark.parametrize("sides", [([], []), ([row([1.5] * 3)], [row([1.5] * 3, threads=4)])])
def test_nothing_in_common_is_refused(sides):
    with pytest.raises(ValueError, match="none in common"):
        compare(*sides)


def test_a_gate_stops_where_accuracy_is_no_longer_measured():
    found = only(row([1.5] * 3, accuracy=0.9), row([1.5] * 3), "accuracy")
    assert (found.verdict, found.worse) == ("no longer measured", True)


def test_a_phone_is_itself_under_a_new_label():
    a = row([10.0, 10.1, 10.2], facts={"serial": "A1"})
    assert only(a, a.replace(device="Pixel 7 (2A11)"), "latency").verdict == "same"


def test_two_rows_for_one_job_are_refused():
    with pytest.raises(ValueError, match="two on side B for 'Q8' on 'Pixel 7'"):
        compare([], [row([1.5]), row([2.5])])
    masks = [row([1.5], facts={"core_mask": mask}) for mask in ("f0", "0f")]
    assert [found.mask for found in compare(masks, masks)] == ["f0", "0f"]


def test_a_delegate_that_no_longer_runs_is_said():
    gpu = row([50.5] * 3, delegate="gpu", facts={"delegate_asked": "gpu"})
    fell = row([99.5] * 3, delegate="xnnpack", facts={"delegate_asked": "gpu"})
    found = only(gpu, fell)
    assert found.verdict == "slower" and "ran on gpu in A, on xnnpack in B" in found.why


def test_throttled_runs_are_said():
    hot = row([1.5] * 3, facts={"repetitions": [{"p50_us": 1.6, "throttled": "status 2"}, {"p50_us": 1.5}]})
    assert "; B was throttled in 1 of 2" in only(row([1.5] * 3), hot).why


def test_failures():
    good, bad = row([1.5] * 3), row([], error="exit code 137: killed")
    assert (only(good, bad).verdict, only(good, bad).worse) == ("failed", True)
    assert only(bad, good).verdict == "works now"
    assert only(bad, bad).verdict == "not measured" and only(bad, bad).why == "exit code 137: killed"


def test_repetitions_that_a_crash_took_are_a_failure_and_said():
    good = row([100.5] * 3)
    crash = {"kind": "latency", "error": "crashed (exit code 139)", "log": None}
    lost = {"failed_jobs": [crash], "failures": ["the link dropped", "crashed (exit code 139)"]}
    two = row([1000.5] * 2, facts={"repetitions": [{"p50_us": 1000.5}] * 2, **lost})
    found = only(good, two)
    assert found.worse and found.verdict == "failed" and "crashed (exit code 139)" in found.why
    four = row([100.5] * 4, facts={"repetitions": [{"p50_us": 100.5}] * 4, **lost})
    assert only(good, four).verdict == "same" and "1 of B's repetitions failed" in only(good, four).why
    assert only(row([100.5] * 2), two).verdict == "not enough repetitions"


def test_what_was_measured_another_way_is_said_and_not_judged():
    a = row([100.5] * 3, facts={"binary": {"sha256": "aa"}, "fingerprint": "x"})
    b = row([150.5] * 3, facts={"binary": {"sha256": "bb"}, "fingerprint": "y", "fixed_performance": True})
    found = only(a, b)
    assert found.verdict == "uncertain" and "fixed-performance mode in B only" in found.why
    assert "another benchmark_model in B" in found.why and "another build of Android in B" in found.why
    few, many = (row([1.5] * 3, accuracy=0.9 + n / 1e4, facts={"eval_samples": n}) for n in (50, 1000))
    found = only(many, few, "accuracy")
    assert found.verdict == "uncertain" and "of 1000 samples in A, of 50 in B" in found.why
    a, b = (row([1.5] * 3, accuracy=share, facts={"eval_sha256": sha}) for share, sha in ((0.95, "aa"), (0.02, "bb")))
    assert only(a, b, "accuracy").verdict == "uncertain" and "other data in B" in only(a, b, "accuracy").why


@pytest.mark.parametrize(
    ("joules", "low", "high", "source", "verdict"),
    [
        (0.012, 0.0118, 0.0122, "odpm", "more energy"),
        (0.008, 0.0079, 0.0081, "odpm", "less energy"),
        (0.0101, 0.01005, 0.0102, "odpm", "same"),
        (0.012, 0.009, 0.015, "odpm", "uncertain"),
        (0.012, 0.0118, 0.0122, "level", "uncertain"),
        (0.012, -0.001, 0.025, "odpm", "uncertain"),
        (None, None, None, None, "not measured"),
    ],
)
def test_energy(joules, low, high, source, verdict):
    def make(joules, low, high, source):
        numbers = {"joules": joules, "low": low, "high": high} if joules else {"refused": "charging over USB"}
        return row([1.5] * 3, energy_joules=joules, energy_source=source, facts={"energy": numbers})

    found = only(make(0.010, 0.0099, 0.0101, "odpm"), make(joules, low, high, source), "energy")
    assert found.verdict == verdict and found.worse == (verdict == "more energy")


@pytest.mark.parametrize(("b", "verdict"), [(0.90, "less accurate"), (0.909, "same"), (0.92, "more accurate")])
def test_accuracy(b, verdict):
    found = only(row([1.5] * 3, accuracy=0.91), row([1.5] * 3, accuracy=b), "accuracy")
    assert found.verdict == verdict and found.worse == (b == 0.90)


def test_the_table_shows_every_row_and_reads_no_markup():
    a, b = make_rows([PIXEL]), make_rows([PIXEL | {"slower": 1.2}, GALAXY])
    hostile = row([100.5] * 3, id="[red]x[/red] $(rm)")
    found = compare([*a, hostile], [*b, hostile.replace(facts=None, latency_p50_us=150.0)])
    console = Console(width=300, record=True, file=open("/dev/null", "w"))
    console.print(format_comparison(found))
    text = console.export_text()
    assert "[red]x[/red] $(rm)" in text and "slower" in text and "only in B" in text
    assert text.count("│") >= len(found)


def test_bootstrap_ratio_refuses_what_has_no_ratio():
    with pytest.raises(ValueError, match="three or more values above 0"):
        bootstrap_ratio([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="three or more values above 0"):
        bootstrap_ratio([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="threshold"):
        compare([], [], threshold=5)
