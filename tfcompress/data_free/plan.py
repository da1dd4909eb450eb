"""Which bits each kernel gets: greedily, the step first that adds least noise for each byte it saves."""

from dataclasses import dataclass

import numpy as np

from tfcompress.data_free.adapt import nearest

LADDER = (8, 4, 2)  # bits of a weight
SMALLEST = 2048  # weights of a kernel that is worth fewer bits than eight


@dataclass(frozen=True)
class Plan:
    """Bits a kernel.

    Attributes:
        rounded: a ``Rounded`` for each kernel, in the order given, with nearest codes.
        saved: bytes less than eight bits everywhere take.
    """

    rounded: tuple
    saved: int


def plan(kernels, to_save):
    """Bits for each kernel.

    Args:
        kernels: from ``moments.observe``.
        to_save: bytes to go below what eight bits take; 0: eight bits everywhere.

    Returns:
        A ``Plan``; it saves less than ``to_save`` only where nothing is left to take.
    """
    options = [nearest(kernels, LADDER[0])]
    options += [_fewer(options[0], bits) for bits in LADDER[1:] if to_save > 0]
    level, saved = [0] * len(kernels), 0
    while saved < to_save:
        steps = [_step(options, at, level[at]) for at in range(len(kernels))]
        best = min(range(len(steps)), key=lambda at: steps[at][0], default=None)
        if best is None or not np.isfinite(steps[best][0]):
            break
        level[best] += 1
        saved += steps[best][1]
    return Plan(tuple(options[at][number] for number, at in enumerate(level)), saved)


def _fewer(eight, bits):
    """The kernels in fewer bits; None for small ones, and for those of which nothing is known."""
    at = [number for number, one in enumerate(eight) if one.kernel.samples and one.weights >= SMALLEST]
    found = [None] * len(eight)
    for number, one in zip(at, nearest([eight[number].kernel for number in at], bits), strict=True):
        found[number] = one
    return found


def _step(options, at, level):
    """``(noise a byte, bytes)`` of a kernel's next step down; the first infinite where there is none."""
    below = options[level + 1][at] if level + 1 < len(options) else None
    if below is None:
        return np.inf, 0
    now = options[level][at]
    saved = _bytes(now) - _bytes(below)
    return (below.error - now.error) / saved, saved


def _bytes(one):
    return one.weights * one.bits // 8
