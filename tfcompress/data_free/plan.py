"""Which bits each kernel gets: greedily, the step first that adds least noise for each byte it saves."""

from dataclasses import dataclass

import numpy as np

from tfcompress.data_free.adapt import nearest

LADDER = (8, 4, 2)  # bits of a weight
SMALL_DB = 27.0  # "small": kernels lose bits while the noise of all of them together stays so far below the signal
QUICK = ("FULLY_CONNECTED",)  # of few bits not much slower; a convolution takes five times as long
SMALLEST = 2048  # weights of a kernel that is worth fewer bits than eight


@dataclass(frozen=True)
class Plan:
    """Bits a kernel.

    Attributes:
        rounded: a ``Rounded`` for each kernel, in the order given, with nearest codes.
        saved: bytes less than eight bits everywhere take.
        noise: sum of the kernels' noise / signal.
    """

    rounded: tuple
    saved: int
    noise: float


def plan(kernels, to_save=None):
    """Bits for each kernel.

    Args:
        kernels: from ``moments.observe``.
        to_save: bytes to go below what eight bits take; None: what can be saved at ``SMALL_DB``.

    Returns:
        A ``Plan``; it saves less than ``to_save`` only where nothing is left to take.
    """
    options = [list(nearest(kernels, LADDER[0]))]
    level, saved, noise = [0] * len(kernels), 0, sum(one.error for one in options[0])
    options += [_below(options[0], bits, to_save is None) for bits in LADDER[1:]]
    while to_save is None or saved < to_save:
        room = np.inf if to_save is not None else 10 ** (-SMALL_DB / 10) - noise
        steps = [_step(options, at, level[at], room) for at in range(len(kernels))]
        best = min(range(len(steps)), key=lambda at: steps[at][0], default=None)
        if best is None or not np.isfinite(steps[best][0]):
            break
        level[best] += 1
        noise, saved = noise + steps[best][1], saved + steps[best][2]
    return Plan(tuple(options[at][number] for number, at in enumerate(level)), saved, noise)


def _below(eight, bits, quick):
    """The kernels in fewer bits; None for those that stay: small ones, and with ``quick`` what would become slow."""
    at = [number for number, one in enumerate(eight) if one.kernel.samples and one.weights >= SMALLEST
          and (one.kernel.op in QUICK or not quick)]
    found = [None] * len(eight)
    for number, one in zip(at, nearest([eight[number].kernel for number in at], bits), strict=True):
        found[number] = one
    return found


def _step(options, at, level, room):
    """``(noise a byte, noise, bytes)`` of a kernel's next step down; the first infinite where there is none."""
    below = options[level + 1][at] if level + 1 < len(LADDER) else None
    if below is None or below.error - options[level][at].error > room:
        return np.inf, 0.0, 0
    now = options[level][at]
    saved, added = _bytes(now) - _bytes(below), below.error - now.error
    return added / saved, added, saved


def _bytes(one):
    return one.weights * one.bits // 8
