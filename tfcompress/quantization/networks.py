"""``QuantizationNetwork``: quantization as a sum of sigmoids that sharpen into steps while the network trains."""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.method import Config, Method, serializable, straight_through
from tfcompress.quantization.projection import project


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

    ``alpha`` is that of the least squares fit of ``alpha * levels`` to ``x`` (``projection.project``; negative values
    count as 0 where 0 is the lowest level), the thresholds lie half way between its levels, and ``beta`` brings
    ``max|x|`` to 5/4 of the largest level. The paper takes ``alpha = 1 / beta`` and the midpoints of k-means centres,
    which lie elsewhere than the levels and are lopsided: at 3 bits a net of 92 % started from 10 %, in place of 88 %.
    """
    x, top = np.ravel(x).astype("float64"), max(levels)
    x = np.maximum(x, 0) if levels[0] == 0 else x
    largest = np.abs(x).max(initial=0.0)
    beta = 1.25 * top / largest if largest > 0 else 1.0
    alpha, _ = project(x, sorted({abs(level) for level in levels}))
    alpha = alpha if alpha > 0 else 1 / beta
    middles = [(low + high) / 2 for low, high in zip(levels, levels[1:], strict=False)]
    return np.float32(alpha), np.float32(beta), (beta * alpha * np.array(middles)).astype("float32")


def check_temperature(schedule):
    """A temperature is above 0 from the first step on and has an end: the steps are hard from there on."""
    end = getattr(schedule, "end", None)
    if end is None or not (schedule(0) > 0 and schedule(end) > 0):
        raise ValueError("`schedule` gives a temperature above 0 from the first step on, and has an end: "
                         f"Linear(200, begin=0, end=2000, initial=5). Received: {schedule!r}.")


def check_ascending(levels):
    whole = len(levels) > 1 and all(type(v) is int for v in levels) and list(levels) == sorted(set(levels))
    if not whole or (levels[0] != 0 and levels != tuple(-v for v in reversed(levels))):
        raise ValueError("`levels` are ascending whole numbers that mirror each other, (-1, 0, 1), or start at 0, for "
                         f"what is never negative: (0, 1, 2, 3). Received: levels={levels!r}.")


@serializable
@dataclass(frozen=True)
class QuantizationNetwork(Method):
    """Forward ``alpha * (sum_i s_i * sigmoid(T * (beta * w - b_i)) - o)``, one ``alpha`` and ``beta`` a tensor.

    ``s_i`` are the heights of the steps between the levels and ``-o`` is the lowest level, so that for large ``T`` the
    values are ``alpha * levels``. The temperature ``T`` rises along the schedule; at its end the steps are hard, and
    gradients are those of the soft ones at the last ``T``: fine-tune there, with what is left of the learning rate.
    ``bake`` is always hard. Gradients are exact, also those of ``alpha`` and ``beta``, which train as logarithms: they
    stay positive, and a step of Adam changes them by the same share in every layer. ``b`` is fitted at the start and
    stays. Start from a trained network (from scratch the paper lost 15 points), the first and last layers float.
    Weights that come in as 0, pruned ones, stay 0 whatever the levels.

    For activations: ``activations.quantize_activations(model, QuantizationNetwork(schedule, (0, 1, 2, 3)), x)``.

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
        check_ascending(self.levels)
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

    def trained(self, x, state):
        """What training sees of weights or activations: soft values, from the schedule's end on hard ones."""
        x = ops.cast(ops.convert_to_tensor(x), "float32")
        soft = soft_quantized(x, *self._steps(state), state["temperature"])
        return straight_through(soft, ops.where(ops.cast(state["hard"], "bool"), self.rounded(x, state), soft))

    def rounded(self, x, state):
        """The hard values of weights or activations."""
        return hard_quantized(ops.cast(ops.convert_to_tensor(x), "float32"), *self._steps(state))

    def _kept(self, w, quantized):
        return quantized if 0 in self.levels else ops.where(ops.convert_to_tensor(w) == 0, 0.0, quantized)

    def apply(self, w, state):
        return self._kept(w, self.trained(w, state))

    def bake(self, w, state):
        return self._kept(w, self.rounded(w, state))

    def idle(self, states, step):
        return all(state["hard"] for state in states.values())

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        now = {"temperature": np.float32(self.schedule(step)), "hard": np.float32(step >= self.schedule.end)}
        return {path: state | now for path, state in states.items()}

    def moved(self, x, state, step):
        """New state of activations at a step of training, in the graph; ``step`` is an integer tensor."""
        end = self.schedule.end
        temperatures = ops.convert_to_tensor([self.schedule(i) for i in range(end + 1)], "float32")
        return {"temperature": temperatures[ops.minimum(step, end)], "hard": ops.cast(step >= end, "float32")}
