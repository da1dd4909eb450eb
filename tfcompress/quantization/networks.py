"""``QuantizationNetwork``: quantization as a sum of sigmoids that sharpen into steps while the network trains."""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.method import Config, Method, serializable, straight_through
from tfcompress.quantization.clustering import k_means


def steps_of(levels):
    """``(s, o)`` of Formula 4: heights of the steps between ascending levels, and the offset.

    >>> steps_of((-4, -2, -1, 0, 1, 2, 4))
    ((2, 1, 1, 1, 1, 2), 4)
    """
    return tuple(high - low for low, high in zip(levels, levels[1:], strict=False)), -levels[0]


def soft_quantized(x, alpha, beta, thresholds, levels, temperature):
    """``alpha * (sum_i s_i * sigmoid(temperature * (beta * x - thresholds[i])) - o)``: any shape, differentiable.

    The exponents are clipped to +-40, where a sigmoid in float32 is 0 or 1 already.
    """
    heights, offset = steps_of(levels)
    scaled, total = beta * x, -float(offset)
    for i, height in enumerate(heights):
        total += height * ops.sigmoid(ops.clip(temperature * (scaled - thresholds[i]), -40.0, 40.0))
    return alpha * total


def hard_quantized(x, alpha, beta, thresholds, levels):
    """The limit of ``soft_quantized``: exactly ``alpha * level``; a step is made where ``beta * x`` is above it."""
    heights, offset = steps_of(levels)
    scaled, total = beta * x, -float(offset)
    for i, height in enumerate(heights):
        total += height * ops.cast(scaled > thresholds[i], x.dtype)
    return alpha * total


def initial_steps(x, levels):
    """``(alpha, beta, thresholds)`` for the values ``x``: numpy, float32; ``thresholds`` is ``(len(levels) - 1,)``.

    ``beta`` brings ``max|x|`` to 5/4 of the largest level. Two levels part at 0; more of them where the k-means centres
    of ``beta * x`` do, one centre a level; for levels that mirror each other, of both ``x`` and ``-x``: lopsided
    thresholds shift what a filter adds up to. Where 0 is a level, what is 0 stays 0. ``alpha`` is the least squares fit
    of the levels to ``x`` (the paper's ``1 / beta`` is up to twice as much where few values are large).
    """
    x = np.ravel(x).astype("float64")
    largest, top = np.abs(x).max(initial=0.0), float(np.abs(levels).max())
    beta = 1.25 * top / largest if largest > 0 else 1.0
    levels, scaled = np.array(levels, "float64"), beta * x
    thresholds = np.zeros(1)
    if len(levels) > 2:
        mirrored = np.concatenate([scaled, -scaled]) if np.array_equal(levels, -levels[::-1]) else scaled
        centers, _ = k_means(mirrored, np.quantile(mirrored, (np.arange(len(levels)) + 0.5) / len(levels)))
        thresholds = (centers[1:] + centers[:-1]) / 2
    side = np.arange(len(levels) - 1) - np.searchsorted(levels, 0.0)     # below 0: its step is under the level 0
    if 0 in levels:
        least = 0.01 * top
        thresholds = np.where(side < 0, np.minimum(thresholds, -least), np.maximum(thresholds, least))
    codes = levels[(scaled[:, None] > thresholds).sum(1)] if len(x) else np.zeros(0)
    alpha = (codes @ x) / (codes @ codes) if codes.any() else 0.0
    return np.float32(alpha if alpha > 0 else 1 / beta), np.float32(beta), thresholds.astype("float32")


def check_temperature(schedule):
    """A temperature is above 0 from the first step on and has an end: the steps are hard from there on."""
    end = getattr(schedule, "end", None)
    if end is None or not (schedule(0) > 0 and schedule(end) > 0):
        raise ValueError("`schedule` gives a temperature above 0 from the first step on, and has an end: "
                         f"Linear(200, begin=0, end=2000, initial=5). Received: {schedule!r}.")


def check_levels(levels):
    if len(levels) < 2 or any(type(v) is not int for v in levels) or list(levels) != sorted(set(levels)):
        raise ValueError("`levels` are two or more whole numbers in ascending order, e.g. (-1, 0, 1). "
                         f"Received: {levels!r}.")


@serializable
@dataclass(frozen=True)
class QuantizationNetwork(Method):
    """Forward ``alpha * (sum_i s_i * sigmoid(T * (beta * w - b_i)) - o)``, one ``alpha`` and ``beta`` a tensor.

    ``s_i`` are the heights of the steps between the levels and ``-o`` is the lowest level, so that for large ``T`` the
    values are ``alpha * levels``. The temperature ``T`` rises along the schedule; at its end the steps are hard, and
    gradients are those of the soft ones at the last ``T``: fine-tune there, with what is left of the learning rate.
    ``bake`` is always hard. Gradients are exact, also those of ``alpha`` and ``beta``, which train as logarithms: they
    stay positive, and a step of Adam changes them by the same share in every layer. ``b`` is found by k-means and
    stays. Start from a trained network (from scratch the paper lost 15 points), the first and last layers float.

    Quantization Networks, Yang et al. 2019 (arXiv:1911.09464), formula 4 of the survey.

    Args:
        schedule: step -> temperature > 0, with an end. The paper's is 5 to 10 times the epoch, 55 epochs long:
            ``Linear(275.0, begin=0, end=55 * steps, initial=5.0)``.
        levels: whole numbers, ascending: ``(-1, 1)`` is binary, ``(-1, 0, 1)`` ternary, the default takes 3 bits.

    Raises:
        ValueError: a schedule without an end or with a temperature of 0, levels that are not ascending whole numbers.

    >>> import numpy as np
    >>> from tfcompress import Linear
    >>> method = QuantizationNetwork(Linear(100.0, begin=0, end=50, initial=5.0), levels=(-1, 0, 1))
    >>> w = np.array([-0.5, -0.75, 0.0, 0.01, 0.5, 0.75], "float32")
    >>> np.array(method.bake(w, method.init(w))).tolist()
    [-0.625, -0.625, 0.0, 0.0, 0.625, 0.625]
    """

    schedule: Config
    levels: tuple = (-4, -2, -1, 0, 1, 2, 4)

    trainable = ("log_alpha", "log_beta")

    def __post_init__(self):
        object.__setattr__(self, "levels", tuple(self.levels))           # JSON gives a list back
        check_levels(self.levels)
        check_temperature(self.schedule)

    @property
    def bits(self):
        return math.ceil(math.log2(len(self.levels)))

    @property
    def milestones(self):
        return tuple(step for step in (self.schedule.begin, self.schedule.end) if step)

    def init(self, w):
        """``hard`` is 1 from the first update at or after the schedule's end."""
        alpha, beta, thresholds = initial_steps(w, self.levels)
        return {"log_alpha": np.log(alpha), "log_beta": np.log(beta), "thresholds": thresholds,
                "temperature": np.float32(self.schedule(0)), "hard": np.float32(0)}

    def _steps(self, state):
        return ops.exp(state["log_alpha"]), ops.exp(state["log_beta"]), state["thresholds"], self.levels

    def apply(self, w, state):
        w = ops.cast(ops.convert_to_tensor(w), "float32")
        soft = soft_quantized(w, *self._steps(state), state["temperature"])
        hard = hard_quantized(w, *self._steps(state))
        return straight_through(soft, ops.where(ops.cast(state["hard"], "bool"), hard, soft))

    def bake(self, w, state):
        return hard_quantized(ops.cast(ops.convert_to_tensor(w), "float32"), *self._steps(state))

    def idle(self, states, step):
        return all(state["hard"] for state in states.values())

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        now = {"temperature": np.float32(self.schedule(step)), "hard": np.float32(step >= self.schedule.end)}
        return {path: state | now for path, state in states.items()}
