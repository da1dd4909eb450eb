"""MIT-BIH beats from raw WFDB records or from the prepared `mitbih_beats.npz`; `ecg.py` makes splits of them.

One lead (MLII, else the first), 360 Hz -> 125 Hz, 187 samples a beat: 60 before the R peak, 127 after.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

RATE_HZ = 125
BEFORE, AFTER = 60, 127
# AAMI EC57 classes N, S, V, F, Q of the annotation symbols that mark beats.
AAMI = {
    symbol: label
    for label, symbols in enumerate(("NLRejB", "AaJSn", "VEr", "F", "/fQ?"))
    for symbol in symbols
}


@dataclass(frozen=True)
class Beats:
    """`x` int16 (N, 187) in mV/1000 at 125 Hz, `aami` int8 0..4 = N,S,V,F,Q, `symbol` str, `record` int16.

    Beats of a record stand together, in the order of time.
    """

    x: np.ndarray
    aami: np.ndarray
    symbol: np.ndarray
    record: np.ndarray


def read_npz(path):
    """Beats from a prepared file; ValueError when it is not one (a pickled file is never opened)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Beats(*(file[field.name] for field in fields(Beats)))
    except (ValueError, KeyError, OSError) as error:
        names = ", ".join(field.name for field in fields(Beats))
        raise ValueError(f"{path} is not a file of MIT-BIH beats (arrays {names}): {error}") from error


def read_folder(folder):
    """Beats of all WFDB records (`100.hea`, `100.dat`, `100.atr`, ...) in `folder`; needs the package `wfdb`."""
    folder = Path(folder)
    names = sorted(path.stem for path in folder.glob("*.hea") if path.with_suffix(".atr").is_file())
    if not names:
        raise FileNotFoundError(f"No WFDB record with annotations (100.hea, 100.dat, 100.atr, ...) in {folder}.")
    parts = [_read_record(folder / name) for name in names]
    return Beats(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Beats)))


def download(folder):
    """Downloads MIT-BIH (104 MB) from PhysioNet into `folder`, which appears when all is there; OSError if it fails."""
    folder = Path(folder)
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    _wfdb().dl_database("mitdb", str(part))
    os.replace(part, folder)


def _read_record(path):
    from scipy.signal import resample_poly

    wfdb = _wfdb()
    record = wfdb.rdrecord(str(path))
    notes = wfdb.rdann(str(path), "atr")
    lead = record.sig_name.index("MLII") if "MLII" in record.sig_name else 0
    millivolt = resample_poly(record.p_signal[:, lead], RATE_HZ, int(record.fs)).astype("float32")
    peaks = np.rint(notes.sample * RATE_HZ / record.fs).astype(int)
    keep = [
        i
        for i, symbol in enumerate(notes.symbol)
        if symbol in AAMI and peaks[i] >= BEFORE and peaks[i] + AFTER <= len(millivolt)
    ]
    window = peaks[keep][:, None] + np.arange(-BEFORE, AFTER)
    symbol = np.array([notes.symbol[i] for i in keep], "U1")
    return Beats(
        np.round(millivolt[window] * 1000).clip(-32768, 32767).astype("int16"),
        np.array([AAMI[s] for s in symbol], "int8"),
        symbol,
        np.full(len(keep), int(path.name), "int16"),
    )


def _wfdb():
    try:
        import wfdb
    except ImportError as error:
        raise ModuleNotFoundError("Reading MIT-BIH records needs the package wfdb: pip install wfdb") from error
    return wfdb
