"""Heartbeats: MIT-BIH arrhythmia, AAMI classes, split by patient (DS1/DS2) or by beat.

Licence: Open Data Commons Attribution 1.0 (ODC-By). Credit:
Moody GB, Mark RG, "The impact of the MIT-BIH Arrhythmia Database", IEEE Eng in Med and Biol 20(3):45-50, 2001;
Goldberger AL et al., "PhysioBank, PhysioToolkit, and PhysioNet", Circulation 101(23):e215-e220, 2000.
Patient split: de Chazal P, O'Dwyer M, Reilly RB, IEEE Trans Biomed Eng 51(7):1196-1206, 2004. The 48 records are of 47
people: 201 (DS1) and 202 (DS2) are one man's, as in every paper that uses this split.
"""

import os
from pathlib import Path

import numpy as np

from . import mitbih, patient
from .splits import Splits, find

LICENCE = "MIT-BIH Arrhythmia Database (ODC-By 1.0): Moody & Mark 2001; Goldberger et al. 2000 (PhysioNet)."
HELP = (
    "The heartbeats (MIT-BIH) are in no package: set TFCOMPRESS_DATA to the folder of mitbih_beats.npz or of the WFDB "
    "records, or let load('ecg', download=True) fetch them from PhysioNet (pip install wfdb)."
)
NAMES = "NSVFQ"
DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
DS2 = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)
# Patients of DS1 kept for validation: together 9,920 N, 213 S, 634 V, 34 F. Training keeps 208, which alone holds
# 372 of the 414 F, and 209, 201, 207, 118, which hold most S.
VALIDATION = (114, 124, 205, 220, 223)


def load(path=None, *, split="patient", channels="patient", classes="NSVF", download=False, validation=VALIDATION):
    """Beats at 125 Hz, x float32 (N, 187, 4 or 1), R peak at sample 60; groups = record numbers.

    channels: "patient" = the z-scored beat, its difference from the patient's usual beat, and the intervals before and
    after it as two constant channels (`patient.channels`: no labels, past beats only), or "beat" = the first alone.

    path: `mitbih_beats.npz`, a folder that holds it, or a folder of WFDB records; default: env TFCOMPRESS_DATA.
    split: "patient" = DS1 without the `validation` records, those records, DS2 (paced patients left out), or
    "beat" = 72/8/20 % of all beats at random, for comparison with papers only: beats of one patient are then on both
    sides, and accuracy is far too good. classes: AAMI letters to keep. download=True fetches MIT-BIH from
    PhysioNet into the folder mitdb in `path` (default ~/.cache/tfcompress) when it is not there.
    """
    if split not in ("patient", "beat"):
        raise ValueError(f"split={split!r}; expected 'patient' or 'beat'.")
    if channels not in ("patient", "beat"):
        raise ValueError(f"channels={channels!r}; expected 'patient' or 'beat'.")
    if not classes or set(classes) - set(NAMES) or len(set(classes)) != len(classes):
        raise ValueError(f"classes={classes!r}; expected letters of {NAMES!r}, each once.")
    beats = _read(path, download)
    label = np.array([classes.find(name) for name in NAMES])[beats.aami]
    parts = _by_patient(beats, validation) if split == "patient" else _by_beat(beats)
    parts = [np.flatnonzero(part & (label >= 0)) for part in parts]
    missing = [name for name, part in zip(("train", "validation", "test"), parts, strict=True) if not len(part)]
    if missing:
        raise ValueError(f"No beats for {', '.join(missing)}: only records {sorted(set(beats.record.tolist()))} found.")
    x = patient.channels(beats.x, beats.record) if channels == "patient" else patient.standardize(beats.x)
    arrays = [array for part in parts for array in (x[part], label[part])]
    groups = [beats.record[part].astype("int32") for part in parts]
    return Splits("ecg", tuple(classes), *arrays, LICENCE, *groups)


def _read(path, download):
    try:
        return mitbih.read_npz(find("mitbih_beats.npz", path, help=HELP))
    except FileNotFoundError:
        folder = Path(path or os.environ.get("TFCOMPRESS_DATA") or "~/.cache/tfcompress").expanduser()
        for place in (folder, folder / "mitdb", Path("~/.cache/tfcompress/mitdb").expanduser()):
            if len(list(place.glob("*.atr"))) >= 2:
                return mitbih.read_folder(place)
        if not download:
            raise
    folder = folder / "mitdb" if path else Path("~/.cache/tfcompress/mitdb").expanduser()
    try:
        mitbih.download(folder)
    except OSError as error:
        raise FileNotFoundError(f"PhysioNet did not give MIT-BIH ({type(error).__name__}). {HELP}") from error
    return mitbih.read_folder(folder)


def _by_patient(beats, validation):
    unknown = sorted(set(validation) - set(DS1))
    if unknown or not validation:
        raise ValueError(f"validation={tuple(validation)}; expected records of DS1: {DS1}.")
    train = sorted(set(DS1) - set(validation))
    return [np.isin(beats.record, records) for records in (train, list(validation), DS2)]


def _by_beat(beats):
    draw = np.random.default_rng(0).random(len(beats.x))
    return [draw < 0.72, (draw >= 0.72) & (draw < 0.8), draw >= 0.8]
