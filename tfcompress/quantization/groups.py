"""Weights in groups that share one scale: the whole tensor, an output channel, or the gates of an LSTM."""

import numpy as np
from keras import ops

SHARED = ("tensor", "channel")


def check_scales(scales):
    """Raise ValueError for anything but "tensor", "channel" or a number of groups >= 1."""
    if scales not in SHARED and not (isinstance(scales, int) and not isinstance(scales, bool) and scales >= 1):
        raise ValueError('`scales` is "tensor" (one), "channel" (one an output channel) or a number of groups of equal '
                         f"width along the last axis, 4 for the gates of an LSTM. Received: scales={scales!r}.")


def group_count(shape, scales) -> int:
    """How many groups a weight of ``shape`` (output channels last) has.

    >>> [group_count((3, 3, 8, 16), scales) for scales in ("tensor", "channel", 4)]
    [1, 16, 4]
    """
    channels = shape[-1]
    count = {"tensor": 1, "channel": channels}.get(scales, scales)
    if channels % count:
        raise ValueError(f"scales={scales} makes groups of equal width. Received: a weight of shape {tuple(shape)}, "
                         f"whose {channels} output channels can't be divided by {count}.")
    return count


def grouped(w, scales, xp=ops):
    """``w`` as (rows, groups, channels of a group): group statistics are over axes 0 and 2.

    >>> grouped(np.arange(12).reshape(3, 4), 2, np).shape
    (3, 2, 2)
    """
    count = group_count(w.shape, scales)
    return xp.reshape(w, (-1, count, w.shape[-1] // count))


def members(w, scales):
    """``w`` (numpy) as (groups, members of a group); ``gathered`` is the way back.

    >>> members(np.arange(8).reshape(2, 4), 2).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    parts = grouped(w, scales, np).transpose(1, 0, 2)
    return parts.reshape(len(parts), -1)


def gathered(parts, shape, scales):
    """(groups, members) back to ``shape``.

    >>> gathered(members(np.arange(8).reshape(2, 4), 2), (2, 4), 2).tolist()
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    count = group_count(shape, scales)
    width = shape[-1] // count
    return parts.reshape(count, -1, width).transpose(1, 0, 2).reshape(shape)


def spread(scale, shape, scales, xp=ops):
    """One number a group, (groups,), as an array that multiplies a weight of ``shape``: (1, ..., channels).

    >>> spread(np.array([1.0, 2.0]), (5, 4), 2, np).tolist()
    [[1.0, 1.0, 2.0, 2.0]]
    """
    width = shape[-1] // group_count(shape, scales)
    return xp.reshape(xp.repeat(scale, width, axis=0), (1,) * (len(shape) - 1) + (shape[-1],))
