"""Students by depth and by width: how many blocks and channels, and which of them meets a budget.

Whether a small student should rather be deep or wide is a question for an experiment: make one of each at the same
budget (``scaling="depth"``, ``"width"``, ``"balanced"``), train all with and without a teacher, several seeds each.
"""

import math
from dataclasses import dataclass

import keras

METRICS = ("parameters", "flops", "latency_us")
LINES = {  # how depth and width follow one number
    "width": lambda scale: (1.0, scale),
    "depth": lambda scale: (scale, 1.0),
    "balanced": lambda scale: (scale**2, scale),
}
CLOSE = 1e-3  # of the budget, and of the last step of the bisection
STEPS = 10  # halvings or doublings at most, and bisections


@dataclass(frozen=True, eq=False)
class Student:
    """A model that meets a budget.

    Attributes:
        depth, width: multipliers it was built with.
        model: the Keras model, not trained.
        amount: what it needs: parameters, FLOPs or microseconds.
        budget: what it was allowed, in the same unit.
        metric, scaling: as asked for.
    """

    depth: float
    width: float
    model: keras.Model
    amount: float
    budget: float
    metric: str
    scaling: str


def scaled(blocks, channels, depth, width):
    """Stages of a student: ``max(1, round(depth * N))`` blocks, ``width * C`` channels to the nearest 8, at least 8.

    Halves go to the even number, as Python rounds. Parameters and FLOPs grow about as ``depth * width**2``.

    Args:
        blocks, channels: of the teacher's stages, one number a stage.
        depth, width: positive multipliers.

    Source: Shin, Moon, Lee, "Towards Understanding Architectural Effects on Knowledge Distillation", ICTC 2020.

    >>> scaled((3, 4, 6), (32, 64, 128), depth=0.5, width=0.3)
    ((2, 2, 3), (8, 16, 40))
    """
    if len(blocks) != len(channels) or not blocks or min(*blocks, *channels) < 1:
        raise ValueError(f"Each stage has one or more blocks and channels. Received: blocks={tuple(blocks)}, "
                         f"channels={tuple(channels)}. Give both as many numbers.")
    if not (0 < depth < math.inf and 0 < width < math.inf):
        raise ValueError(f"Depth and width are positive multipliers. Received: depth={depth}, width={width}.")
    return (tuple(max(1, round(depth * number)) for number in blocks),
            tuple(8 * max(1, round(width * number / 8)) for number in channels))


def solve(build, budget, metric="parameters", scaling="width", *, tolerance=0.05, measure=None):
    """The student on a line of depth and width whose amount is nearest to ``budget``, found by bisection.

    "width" keeps depth 1, "depth" keeps width 1, "balanced" goes along ``depth = width**2``. Blocks are whole and
    channels come in eights, so amounts are stairs, and the nearest step wins. Where the stairs of "balanced" miss the
    budget by more than the tolerance, the nearest step's depth is kept and its width alone is refined. About 15 models
    are built one after the other, 10 more for that; only the nearest is kept.

    Args:
        build: ``(depth, width) -> keras.Model``, such as ``lambda d, w: staged(shape, classes, depth=d, width=w)``.
        budget: amount; below 1 a share of what ``build(1, 1)`` needs.
        metric: "parameters" (``count_params()``), "flops" or "latency_us".
        scaling: "width", "depth" or "balanced".
        tolerance: distance from the budget that is allowed, a share of it; None takes the nearest, however far.
        measure: ``model -> amount``, needed for FLOPs and latency. FLOPs by the toolkit's own count:
            ``lambda model: 2 * inspect(convert(model, "float32")).macs``.

    Returns:
        A ``Student``.

    Raises:
        ValueError: no student is near enough (the message tells the nearest and the smallest), or no ``measure``.

    Source: Shin, Moon, Lee, ICTC 2020.

    >>> import keras
    >>> def build(depth, width):
    ...     sizes = [keras.layers.Dense(max(1, round(100 * width))) for _ in range(max(1, round(4 * depth)))]
    ...     return keras.Sequential([keras.Input((10,)), *sizes])
    >>> student = solve(build, 0.5)
    >>> student.depth, round(student.width, 2), student.amount, round(student.budget)
    (1.0, 0.7, 15680, 15700)
    """
    _check(budget, metric, scaling, tolerance, measure)
    search = _Search(build, LINES[scaling], measure or (lambda model: model.count_params()))
    own = search(1.0)
    search.budget = budget = budget * own if budget < 1 else float(budget)
    if not search.near():
        _approach(search, own)
    if scaling == "balanced" and tolerance is not None and not search.near(tolerance):
        depth, width, _, amount = search.nearest
        search.line = lambda scale: (depth, width * scale)
        _approach(search, amount)
        search.line = LINES[scaling]
    depth, width, model, amount = search.nearest
    if tolerance is not None and not search.near(tolerance):
        raise ValueError(_too_far(search, tolerance, metric, scaling))
    return Student(depth, width, model, amount, budget, metric, scaling)


class _Search:
    """Builds and measures the model of one scale; keeps the nearest to the budget and the smallest amount."""

    def __init__(self, build, line, measure):
        self.build, self.line, self.measure = build, line, measure
        self.budget = self.nearest = self.smallest = None

    def __call__(self, scale):
        depth, width = self.line(scale)
        model = self.build(depth, width)
        amount = self.measure(model)
        if not 0 < amount < math.inf:
            raise ValueError(f"An amount must be positive. Received: {amount} for the model of depth={depth:g}, "
                             f"width={width:g}. Look at `measure`.")
        found = (depth, width, model, amount)
        if self.nearest is None or abs(amount - self.budget) < abs(self.nearest[3] - self.budget):
            self.nearest = found
        self.smallest = min(self.smallest or (amount, depth, width), (amount, depth, width))
        return amount

    def near(self, share=CLOSE):
        return abs(self.nearest[3] - self.budget) <= share * self.budget


def _bracket(search, amount, target, scale=1.0):
    """Two scales, one on each side of the target; None where the models stop changing before it."""
    factor, still = (0.5 if amount > target else 2.0), 0
    for _ in range(STEPS):
        before, amount = amount, search(scale * factor)
        scale *= factor
        if (amount <= target) == (factor < 1):
            return min(scale, scale / factor), max(scale, scale / factor)
        still = still + 1 if amount == before else 0
        if still == 2:
            break
    return None


def _approach(search, amount):
    """Bisect the line of the search, on which scale 1 has this amount."""
    low, high = _bracket(search, amount, search.budget) or (1.0, 1.0)
    for _ in range(STEPS):
        if search.near() or high / low < 1 + CLOSE:
            return
        middle = math.sqrt(low * high)
        if search(middle) > search.budget:
            high = middle
        else:
            low = middle


def _too_far(search, tolerance, metric, scaling):
    depth, width, _, amount = search.nearest
    least, least_depth, least_width = search.smallest
    _bracket(search, least, target=0.0, scale=least_depth if scaling == "depth" else least_width)
    least, least_depth, least_width = search.smallest
    return (
        f"No student comes within {tolerance:.0%} of the budget. Received: budget={search.budget:,.0f} {metric}, "
        f"scaling={scaling!r}. Nearest: {amount:,.0f} (depth={depth:g}, width={width:g}); smallest: {least:,.0f} "
        f"(depth={least_depth:g}, width={least_width:g}). Blocks are whole and channels come in eights: ask for one of "
        f"these, try another scaling ({', '.join(LINES)}), or take the nearest with tolerance=None.")


def _check(budget, metric, scaling, tolerance, measure):
    if metric not in METRICS:
        raise ValueError(f"Unknown metric: {metric!r}. Known: {list(METRICS)}.")
    if scaling not in LINES:
        raise ValueError(f"Unknown scaling: {scaling!r}. Known: {list(LINES)}.")
    if not 0 < budget < math.inf:
        raise ValueError(f"A budget is positive: an amount, or below 1 a share of the full model. Received: {budget}.")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(f"A tolerance is a share from 0 to 1, or None for the nearest. Received: {tolerance}.")
    if measure is None and metric != "parameters":
        raise ValueError(
            f"Only parameters are counted without a file. Received: metric={metric!r} without measure. Give measure=, "
            f"a function model -> amount, such as lambda model: 2 * inspect(convert(model, 'float32')).macs for FLOPs.")
