"""Nearest or descended codes, biases corrected or not: which, where no batch normalization vouches for the inputs.

Rounding for the moments of inputs pays where these are like real ones. Noise may be far from them: of files without
batch normalization one gained 13 dB against nearest codes on real inputs, another lost 5.
"""

from dataclasses import replace

import numpy as np

from tfcompress.data_free import adapt
from tfcompress.measure import run, snr_db

SILENT_DB = 100.0  # of nearest codes: the answers to synthetic inputs do not move, and tell nothing
MOST = 16  # inputs that kinds are compared on
WORK = 2e10  # multiply-accumulates that it may take to compare one kind


def better(content, found, inputs, wanted, macs):
    """The kind whose answers to synthetic inputs are nearest to the float file's.

    Where rounding does not move the answers at all, codes stay the nearest, and only biases are corrected.

    Args:
        content: bytes of the float file.
        found: ``adapt.Rounded`` of nearest codes.
        inputs: ``{name: array}``, synthetic.
        wanted: the float file's answers to them, an array each output.
        macs: multiply-accumulates of one input.

    Returns:
        A list of ``Rounded``.
    """
    few = int(np.clip(WORK / max(macs, 1.0), 1, MOST))
    inputs, wanted = {name: array[:few] for name, array in inputs.items()}, [array[:few] for array in wanted]
    plain = _uncorrected(found)
    nearest = _db(content, plain, inputs, wanted)
    if nearest >= SILENT_DB:
        return found
    descended = adapt.descended(found)
    kinds = [plain, descended, _uncorrected(descended)]
    heard = [nearest, *(_db(content, kind, inputs, wanted) for kind in kinds[1:])]
    return kinds[max(range(len(kinds)), key=heard.__getitem__)]  # of equal ones, or of NaN, the nearest


def _uncorrected(found):
    return [replace(one, shift=np.zeros_like(one.shift)) for one in found]


def _db(content, kind, inputs, wanted):
    return snr_db(run(adapt.apply(content, kind), inputs, threads=2), wanted)
