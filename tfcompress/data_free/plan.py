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
    options = [nearest(kernels, bits) for bits in LADDER]
    level, saved, noise = [0] * len(kernels), 0, sum(one.error for one in options[0])
    while to_save is None or saved < to_save:
        room = np.inf if to_save is not None else 10 ** (-SMALL_DB / 10) - noise
        steps = [_step(options, at, level[at], room) for at in range(len(kernels))]
        best = min(range(len(steps)), key=lambda at: steps[at][0], default=None)
        if best is None or not np.isfinite(steps[best][0]):
            break
        level[best] += 1
        noise, saved = noise + steps[best][1], saved + steps[best][2]
    return Plan(tuple(options[at][number] for number, at in enumerate(level)), saved, noise)


def _step(options, at, level, room):
    """``(noise a byte, noise, bytes)`` of a kernel's next step down; the first infinite where there is none.

    ``room`` for noise is finite where nobody asks for a number of bytes: then kernels that would become slow stay.
    """
    if level + 1 == len(LADDER):
        return np.inf, 0.0, 0
    now, below = options[level][at], options[level + 1][at]
    saved, added = _bytes(now) - _bytes(below), below.error - now.error
    slow = np.isfinite(room) and now.kernel.op not in QUICK
    if not now.kernel.samples or now.weights < SMALLEST or slow or added > room:
        return np.inf, 0.0, 0
    return added / saved, added, saved


def _bytes(one):
    return one.weights * one.bits // 8
