"""Schedules: optimizer step -> value (a sparsity, a temperature). Pure, so a resumed run is right by construction."""

import math
from dataclasses import dataclass

from tfcompress.method import Config, serializable


class Schedule(Config):
    """``schedule(step)`` is a float. ``begin`` and ``end`` are the optimizer steps between which it moves."""


@dataclass(frozen=True)
class Ramp(Schedule):
    """What moves from ``initial`` at step ``begin`` to ``target`` at step ``end``."""

    target: float
    begin: int
    end: int
    initial: float = 0.0

    def __post_init__(self):
        if self.begin < 0 or self.end < self.begin:
            raise ValueError(
                f"A schedule runs from `begin` to `end`, with 0 <= begin <= end. Received: begin={self.begin}, "
                f"end={self.end}. Both are optimizer steps: epochs * ceil(samples / batch_size).")

    def progress(self, step):
        """Share of the way from ``begin`` to ``end``, clamped to 0..1."""
        if step >= self.end:
            return 1.0
        if step <= self.begin:
            return 0.0
        return (step - self.begin) / (self.end - self.begin)


@serializable
@dataclass(frozen=True)
class Constant(Schedule):
    """``target`` from step ``begin`` on, 0 before. Masks are refreshed until ``end`` (default: always).

    >>> [Constant(0.5, begin=10)(step) for step in (0, 9, 10, 99)]
    [0.0, 0.0, 0.5, 0.5]
    """

    target: float
    begin: int = 0
    end: int | None = None

    def __call__(self, step):
        return self.target if step >= self.begin else 0.0


@serializable
@dataclass(frozen=True)
class OneShot(Schedule):
    """0 before step ``at``, ``target`` from then on; the mask is chosen once.

    >>> [OneShot(0.9, at=5)(step) for step in (4, 5, 6)]
    [0.0, 0.9, 0.9]
    """

    target: float
    at: int = 0

    @property
    def begin(self):
        return self.at

    @property
    def end(self):
        return self.at

    def __call__(self, step):
        return self.target if step >= self.at else 0.0


@serializable
@dataclass(frozen=True)
class Linear(Ramp):
    """A straight line from ``initial`` at ``begin`` to ``target`` at ``end``.

    >>> [Linear(0.8, 0, 4)(step) for step in (0, 1, 2, 4, 9)]
    [0.0, 0.2, 0.4, 0.8, 0.8]
    """

    def __call__(self, step):
        return self.initial + (self.target - self.initial) * self.progress(step)


@serializable
@dataclass(frozen=True)
class Polynomial(Ramp):
    """Zhu & Gupta 2017 (arXiv:1710.01878): ``s_f + (s_i - s_f) * (1 - progress) ** power``.

    >>> [round(Polynomial(0.9, 0, 100)(step), 4) for step in (0, 25, 50, 75, 100)]
    [0.0, 0.5203, 0.7875, 0.8859, 0.9]
    """

    power: float = 3.0

    def __call__(self, step):
        return self.target + (self.initial - self.target) * (1.0 - self.progress(step)) ** self.power


@serializable
@dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine from ``initial`` at ``begin`` to ``target`` at ``end``.

    >>> [round(Cosine(0.8, 0, 4)(step), 4) for step in (0, 1, 2, 3, 4)]
    [0.0, 0.1172, 0.4, 0.6828, 0.8]
    """

    def __call__(self, step):
        rest = (1.0 + math.cos(math.pi * self.progress(step))) / 2.0
        return self.target + (self.initial - self.target) * rest
