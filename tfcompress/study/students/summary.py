"""What rows of students say: means with Student-t intervals over the seeds, and which of them are separated. Pure."""

import math
import statistics
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its interval; `half` is None for a single value, which has none."""

    mean: float
    half: float | None

    def __str__(self):
        return self.shown()

    def shown(self, digits=1, sign=False) -> str:
        """The mean in so many digits; with a "+" where it is 0 or more.

        >>> Interval(-0.04, 0.3).shown(), Interval(-0.04, 0.3).shown(2), Interval(0.5, 0.3).shown(sign=True)
        ('0.0 ± 0.3', '-0.04 ± 0.30', '+0.5 ± 0.3')
        """
        mean = round(self.mean, digits) + 0.0  # no "-0.0"
        return f"{mean:{'+' if sign else ''}.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")

    @property
    def error(self) -> "Interval":
        """The error rate, where this is an accuracy in percent."""
        return Interval(100 - self.mean, self.half)

    def above(self, other) -> bool:
        """Whether all of this interval lies above the other one; never where one of them has no width.

        >>> Interval(2.0, 0.5).above(Interval(1.0, 0.4)), Interval(2.0, 0.6).above(Interval(1.0, 0.4))
        (True, False)
        """
        if self.half is None or other.half is None:
            return False
        return self.mean - self.half > other.mean + other.half + 1e-9


def interval(values, least=0.0) -> Interval:
    """Mean and `t * s / sqrt(n)`, the 95 % interval of Student's t with n - 1 degrees of freedom.

    Args:
        values: one for each seed.
        least: smallest half-width, such as one sample of the test set: three equal values are not exact.

    >>> print(interval([0.5, 0.8, 1.1]), "|", interval([1.0, 1.0], least=0.2), "|", interval([3.0]))
    0.8 ± 0.7 | 1.0 ± 0.2 | 3.0
    """
    count = len(values)
    if count < 2:
        return Interval(float(values[0]), None)
    half = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * statistics.stdev(values) / math.sqrt(count)
    return Interval(statistics.fmean(values), max(half, least))


@dataclass(frozen=True)
class Group:
    """All seeds of one block and scaling: accuracies and gain in percent and points, time in us.

    `row` is the first seed's row, for what all share; `ratio` the time as a multiple of the teacher's in the same turn.
    """

    block: str
    scaling: str
    seeds: int
    row: dict
    taught: Interval
    alone: Interval
    gain: Interval
    ratio: float
    latency_us: float

    @property
    def off(self) -> float:
        """Distance from the budget, a share of it."""
        return self.row["params"] / self.row["budget"] - 1


def groups(rows) -> list[Group]:
    """Rows of a study by block and scaling, in the order in which they come first."""
    found = {}
    for row in rows:
        found.setdefault((row["block"], row["scaling"]), []).append(row)
    teacher = statistics.median(row["teacher"]["latency_us"] for row in rows)
    return [_group(block, scaling, mine, teacher) for (block, scaling), mine in found.items()]


def teacher_of(rows) -> tuple[dict, Interval, float]:
    """The teacher: its figures of the first seed, its accuracy in percent over the seeds, its median time in us."""
    found = {row["seed"]: row for row in rows}.values()
    return (rows[0]["teacher"], interval([100 * row["teacher"]["accuracy"] for row in found], _sample(rows[0])),
            statistics.median(row["teacher"]["latency_us"] for row in rows))  # fmt: skip


def separated(found: list[Group]) -> list[tuple[Group, Group]]:
    """Pairs (more, less) of students whose intervals of the gain don't overlap."""
    return [(more, less) for more in found for less in found if more.gain.above(less.gain)]


def verdict(found: list[Group]) -> str:
    """What was measured of the students of one block, in a sentence; a winner only where intervals are apart.

    >>> made = [dict(seed=seed, block="basic", scaling=scaling, params=10, budget=10, accuracy_alone=0.9,
    ...              accuracy_taught=0.9 + gain, gain=gain, test_samples=1000, latency_us=9.0,
    ...              teacher=dict(latency_us=90.0, accuracy=0.95))
    ...         for scaling, gains in (("depth", (.006, .008, .010)), ("width", (.001, .003, .005)))
    ...         for seed, gain in enumerate(gains)]
    >>> print(verdict(groups(made)))
    gain depth-only 0.8 ± 0.5 points, width-only 0.3 ± 0.5: not separated at 3 seeds
    """
    told = ", ".join(f"{name(group.scaling)} {group.gain}{' points' if group is found[0] else ''}" for group in found)
    return f"gain {told}: {_judged(found)}"


def _judged(found: list[Group]) -> str:
    seeds = min(group.seeds for group in found)
    if seeds < 2:
        return "one seed has no interval, so nothing is separated"
    if len(found) < 2:
        return f"nothing to compare with, at {seeds} seeds"
    apart = separated(found)
    if not apart:
        return f"not separated at {seeds} seeds"
    told = ", ".join(f"{name(more.scaling)} above {name(less.scaling)}" for more, less in apart)
    pairs = len(found) * (len(found) - 1) // 2
    return f"separated at {seeds} seeds: {told}" + ("" if len(apart) == pairs else "; the others are not")


def name(scaling: str) -> str:
    """The words for a scaling: "depth-only", "width-only", "balanced"."""
    return scaling if scaling == "balanced" else f"{scaling}-only"


def _group(block, scaling, rows, teacher_us) -> Group:
    least = _sample(rows[0])
    ratio = statistics.median(row["latency_us"] / row["teacher"]["latency_us"] for row in rows)
    taught, alone, gain = (interval([100 * row[column] for row in rows], least)
                           for column in ("accuracy_taught", "accuracy_alone", "gain"))  # fmt: skip
    return Group(block, scaling, len(rows), rows[0], taught, alone, gain, ratio, ratio * teacher_us)


def _sample(row) -> float:
    """One sample of the test set, in points."""
    return 100 / row["test_samples"]
