"""Bits by layer under budgets: which are held, which are refused, and what the test set says of the files.

    [TFCOMPRESS_DATA=...] python scripts/bench_mixed.py [--nets ecg_cnn,image_resnet] [--seeds 0]
        [--bytes 0.3,0.2,0.15] [--latency 0.5] [--max-drop 1.0]

Each budget is asked for twice: without calibration (activations float between layers) and with it (int8 by ranges). The
drop is held on the validation data; the row tells the points lost on the test data too. A control is trained once for
each net and seed by table_lowbit.py, in runs/table_lowbit. Rows: scripts/results/bench_mixed.jsonl. Stopped or killed,
the same command goes on.
"""

import argparse
import os
import time
from pathlib import Path

import keras
from controls import control_of
from table_lowbit import NETS, RUNS

import tfcompress as tc
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.mixed import BudgetError, mixed_precision
from tfcompress.study.cell import calibration

RESULTS = Path(__file__).parent / "results" / "bench_mixed.jsonl"


def row_of(control, splits, seed: int, metric: str, share: float, static: bool, max_drop: float) -> dict:
    """One budget: what was reached, or what can't be met and the nearest file."""
    float_file = tc.convert(control)
    ranges = calibration(splits, 300, seed) if static else None
    started, missed = time.perf_counter(), ()
    try:
        found = mixed_precision(control, (splits.x_val, splits.y_val), share, metric, max_drop=max_drop,
                                calibration=ranges)  # fmt: skip
    except BudgetError as error:
        found, missed = error.nearest, error.budgets
    seconds = time.perf_counter() - started
    before, after = (measure.evaluate(file, splits.x_test, splits.y_test) for file in (float_file, found.file))
    return dict(
        missed=list(missed), budgets=found.budgets, tries=found.tries, seconds=seconds, load=os.getloadavg()[0],
        validation_drop=found.drop, test_drop=100 * (before.accuracy - after.accuracy), accuracy=after.accuracy,
        macro_f1=after.macro_f1, float_macro_f1=before.macro_f1, bytes=found.file.size, float_bytes=float_file.size,
        layers=[[layer.name, layer.op, layer.precision, layer.bits, _finite(layer.snr_db_alone), _finite(layer.snr_db)]
                for layer in found.layers],
    )  # fmt: skip


def _finite(value):
    return None if value is None or value == float("inf") else round(value, 1)


def line(row: dict) -> str:
    """One row as it is printed."""
    held = f"refused: {', '.join(row['missed'])}" if row["missed"] else "held"
    reached = ", ".join(f"{name} {reached:,.1f} of {asked:,.1f}" for name, (asked, reached) in row["budgets"].items())
    layers = " ".join(layer[2] for layer in row["layers"])
    return (f"{row['net']} {row['seed']} {row['metric']} {row['share']} static={row['static']}: {held}; {reached}; "
            f"test {row['test_drop']:.2f} points lost; {layers}; {row['seconds']:.0f} s, {row['tries']} files")


def main(options) -> None:
    store = Store(RESULTS, key=("net", "seed", "metric", "share", "static", "max_drop"))
    budgets = [(metric, float(share)) for metric in ("bytes", "latency_us")
               for share in getattr(options, metric).split(",") if share]  # fmt: skip
    for seed, net in ((int(seed), net) for seed in options.seeds.split(",") for net in options.nets.split(",")):
        for metric, share in budgets:
            for static in (False, True):
                row = dict(net=net, seed=seed, metric=metric, share=share, static=static, max_drop=options.max_drop)
                if store.key_of(row) in store:
                    continue
                keras.backend.clear_session()
                splits = datasets.load(NETS[net]["data"])
                job, folder = NETS[net], RUNS / f"{net}-{seed}"
                control = control_of(net, job["options"], job["control"], seed, splits, folder)
                row |= row_of(control, splits, seed, metric, share, static, options.max_drop)
                store.append(row)
                print(line(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="ecg_cnn,image_resnet")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--bytes", default="0.3,0.2,0.15", help="shares of the float32 file's bytes")
    parser.add_argument("--latency", dest="latency_us", default="0.5", help="shares of the float32 file's time")
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of accuracy on the validation data")
    training.pin_threads(1)
    main(parser.parse_args())
