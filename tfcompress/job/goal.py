"""From the bytes that a file may have to the share of filters that must go."""

import bisect
import warnings

import numpy as np

from tfcompress.convert import convert
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.shrink import remove

MARGIN = 0.85                                            # of the target: filters that go are ranked, not drawn
STEPS = [round(0.05 * step, 2) for step in range(1, 20)]    # shares of filters
SAMPLE = 100                                             # inputs; of the int8 files only the bytes are looked at


def sparsity(model, x, target):
    """The least of ``STEPS`` without which the int8 file meets ``target``, 15 % to spare; 0 where it does as it is.

    The last where none is enough; 0, with a warning, where filters can't be removed or no int8 file be made. Found by
    bisection: as many filters, drawn by chance, are removed, and the file made.

    Args:
        model: Keras model, as it is exported; not changed.
        x: inputs, samples first.
        target: times smaller than the float file, up to 1000; bytes above that.
    """
    before, random = model.get_weights(), np.random.default_rng(0)
    noisy = [w + 0.01 * random.random(w.shape) if w.dtype.kind == "f" else w for w in before]
    model.set_weights(noisy)                             # equal constants, as untrained norms have, are stored once
    try:
        goal = target if target > 1000 else len(convert(model).content) / target
        return 0.0 if _bytes(model, x) <= goal else _least(model, x, MARGIN * goal, random)
    except (ValueError, RuntimeError) as error:          # the job's own stages will tell what else does not work
        warnings.warn(f"The plan for this target prunes no filters: {error}", stacklevel=2)
        return 0.0
    finally:
        model.set_weights(before)


def _least(model, x, goal, random):
    """The least of ``STEPS`` that meets ``goal`` bytes."""
    drawn = random.random(Channels(model).count)
    drawn[FIXED] = 1.0
    enough = lambda share: _bytes(_without(model, drawn, share), x) <= goal                    # noqa: E731
    return STEPS[min(bisect.bisect_left(STEPS, True, key=enough), len(STEPS) - 1)]


def _without(model, drawn, share):
    """``model`` without the channels that were drawn below ``share``."""
    channels = Channels(model)
    gone = np.flatnonzero(drawn[channels.roots(np.arange(channels.count))] < share)
    return remove(channels, gone) if len(gone) else model


def _bytes(model, x):
    """Of the int8 file."""
    return len(convert(model, "int8", x[:SAMPLE]).content)
