"""Spoken digits: 2,500 clips of 5 speakers, as log-mel frames made in numpy.

Free Spoken Digit Dataset, Jackson Z et al. Licence: CC BY-SA 4.0. In no package: `spoken_digits_8k.npz` is looked for
in `path` or env TFCOMPRESS_DATA (arrays data int16, offset, label, index, speaker).
"""

import numpy as np

from .splits import Splits, find

LICENCE = "Free Spoken Digit Dataset, Jackson et al. (CC BY-SA 4.0)."
HELP = "The spoken digits are in no package: set TFCOMPRESS_DATA to the folder of spoken_digits_8k.npz."
RATE_HZ = 8000


def load(path=None, *, split="clip", frames=48, bands=20, seed=0):
    """x float32 (N, frames, bands): log-mel energies, standardized, silence in front; groups = speakers.

    split: "clip" = the official test set (clips 0-4 of each digit and speaker) and 10 % of the others for
    validation, or "speaker" = test on the last speaker, validate on the one before, train on the others.
    """
    if split not in ("clip", "speaker"):
        raise ValueError(f"split={split!r}; expected 'clip' or 'speaker'.")
    file = find("spoken_digits_8k.npz", path, help=HELP)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            data, offset, label, index, speaker = (
                arrays[name] for name in ("data", "offset", "label", "index", "speaker")
            )
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{file} is not a file of spoken digits: {error}") from error
    x = np.zeros((len(label), frames, bands), "float32")
    for i, (start, end) in enumerate(zip(offset[:-1], offset[1:], strict=True)):
        mel = log_mel(data[start:end] / np.float32(32768), bands)[-frames:]
        x[i, frames - len(mel) :] = mel
    if split == "clip":
        test = index < 5
        val = ~test & (np.random.default_rng(seed).random(len(label)) < 0.1)
    else:
        names = np.unique(speaker)
        test, val = speaker == names[-1], speaker == names[-2]
    parts = [np.flatnonzero(part) for part in (~test & ~val, val, test)]
    arrays = [array for part in parts for array in (x[part], label[part])]
    groups = [speaker[part] for part in parts]
    return Splits("spoken_digits", tuple("0123456789"), *arrays, LICENCE, *groups)


def log_mel(signal, bands=20, *, window=256, step=128):
    """Log-mel energies of one clip: float (samples,) at 8 kHz -> float32 (frames, bands), mean 0, deviation 1.

    Hann window of 32 ms every 16 ms, triangular filters evenly spaced in mel = 2595 log10(1 + Hz / 700).

    >>> log_mel(np.sin(np.arange(8000) * 0.5)).shape
    (61, 20)
    """
    signal = np.pad(signal, (0, max(0, window - len(signal))))
    pieces = np.lib.stride_tricks.sliding_window_view(signal, window)[::step]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window))) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE_HZ / 2 / 700), bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(window, 1 / RATE_HZ)
    left, centre, right = (edges[i : i + bands, None] for i in range(3))
    filters = np.maximum(0, np.minimum((hertz - left) / (centre - left), (right - hertz) / (right - centre)))
    log = np.log(power @ filters.T + 1e-6)
    return ((log - log.mean()) / max(log.std(), 1e-6)).astype("float32")
