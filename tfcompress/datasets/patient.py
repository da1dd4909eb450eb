"""What a recording itself tells about a beat, without labels: the patient's usual beat, and the time between beats.

The same shape means different things in different patients: a wide beat is normal under a bundle branch block. So each
beat is compared with the running median beat of its record, and its RR intervals with the running mean interval (as in
de Chazal 2004). Both look back only, so that a phone can do it live: it keeps the last 256 beats (95 kB), renews the
two figures every 32 beats, and waits 32 beats (half a minute) at the start and one beat for the interval that follows.
"""

import numpy as np

WINDOW, RENEWED = 256, 32
GAIN = 5  # log-ratios of intervals lie around -0.7..0.7; times 5 they fill the range of a z-scored beat


def channels(x, record):
    """(N, T) int16 beats, in the order of time within each record -> float32 (N, T, 4).

    Channel 0: the z-scored beat; 1: that minus the patient's usual one; 2 and 3: GAIN * log(interval before / mean)
    and GAIN * log(interval after / mean), constant over the beat.
    """
    out = np.empty((*x.shape, 4), "float32")
    z = standardize(x)[..., 0]
    out[..., 0] = z
    before = intervals(x, record).astype("float32")
    for start, end in _records(record):
        rr = before[start:end]
        rr[rr == 0] = x.shape[1]  # a pause, longer than the overlap shows
        rr[0] = rr[min(1, len(rr) - 1)]  # the first and the last interval are not known: as their neighbours
        after = np.append(rr[1:], rr[-1])
        for i in range(0, end - start, RENEWED):
            now = slice(start + i, min(start + i + RENEWED, end))
            past = slice(max(0, i - WINDOW), i) if i else slice(0, RENEWED)
            usual, mean = np.median(z[start:end][past], 0), rr[past].mean()
            out[now, :, 1] = z[now] - usual
            for channel, interval in ((2, rr), (3, after)):
                ratio = interval[now.start - start : now.stop - start] / mean
                out[now, :, channel] = GAIN * np.log(ratio)[:, None]
    return out


def intervals(x, record, shortest=20, overlap=8):
    """Samples from the R peak of the beat before, int (N,); 0 = first of its record, or longer than T - overlap.

    Windows of neighbouring beats overlap, and the samples in the overlap are equal: the shift at which they are is the
    interval, exactly.

    >>> signal = np.random.default_rng(0).integers(-999, 999, 400).astype("int16")
    >>> intervals(np.stack([signal[t : t + 187] for t in (0, 100, 131)]), np.zeros(3)).tolist()
    [0, 100, 31]
    """
    length = x.shape[1]
    follows = np.append(False, record[1:] == record[:-1])
    found = np.zeros(len(x), int)
    for shift in range(length - overlap, shortest - 1, -1):
        rows = np.flatnonzero(follows)
        for k in (0, overlap // 2, overlap - 1):  # three samples first: it is faster than all of the overlap
            rows = rows[x[rows - 1, shift + k] == x[rows, k]]
        found[rows[(x[rows - 1, shift:] == x[rows, : length - shift]).all(1)]] = shift
    return found


def standardize(x):
    """Z-score of each beat: (N, T) any dtype -> float32 (N, T, 1) with mean 0 and deviation 1; a flat beat gives 0.

    >>> standardize(np.array([[1, 3], [5, 5]])).tolist()
    [[[-1.0], [1.0]], [[0.0], [0.0]]]
    """
    x = np.asarray(x, "float32")
    x = x - x.mean(1, keepdims=True)
    return (x / np.maximum(x.std(1, keepdims=True), 1e-6))[..., None]


def _records(record):
    edges = np.flatnonzero(np.diff(record)) + 1
    return list(zip(np.append(0, edges), np.append(edges, len(record)), strict=True))
