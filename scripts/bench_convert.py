"""Time of all six precisions of MobileNetV2 and ResNet50, beside one plain TFLiteConverter float conversion.

    python scripts/bench_convert.py                 # resumes; rows in scripts/results/bench_convert.jsonl
    python scripts/bench_convert.py --fresh --samples 32 --repeats 3

Every row runs in its own process, imports not counted: "plain PRECISION" is TFLiteConverter.from_keras_model as its
guide shows it; "ours" are the steps of tfcompress.convert_all, with the child process started before the clock ("ours,
cold": not). Calibration runs and the gate are timed and printed apart. On a busy machine trust the processor seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS, PRECISIONS = ("MobileNetV2", "ResNet50"), ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
RESULTS = Path(__file__).parent / "results" / "bench_convert.jsonl"
GOAL = 1.5


def build(name):
    import keras

    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(weights=None)
    for layer in model.layers:  # random kernels fade to nothing over 50 layers: let batch normalization keep the scale
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(keras.ops.full_like(layer.moving_variance, 0.1))
    return model


def images(samples):
    import numpy as np

    return np.random.default_rng(0).standard_normal((samples, 224, 224, 3)).astype("float32")


def plain(model, precision, x):
    """TFLiteConverter as its guide shows it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int16x8":
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide, tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision in ("int8", "int16x8"):
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
    clock = Clock()
    content = converter.convert()
    return clock.read() | {"bytes": {precision: len(content)}}


class Clock:
    """Wall and processor seconds of this process and the conversion child since it was made.

    Processor seconds hardly change when others use the machine; wall seconds do.
    """

    def __init__(self):
        self._wall, self._cpu = time.perf_counter(), self._processor()

    def read(self, prefix=""):
        wall, cpu = time.perf_counter() - self._wall, self._processor() - self._cpu
        self.__init__()
        return {f"{prefix}seconds": wall, f"{prefix}cpu_seconds": cpu}

    @staticmethod
    def _processor():
        """All that this process and its living children, with the forks they have buried, have used."""
        import psutil

        me = psutil.Process()
        return sum(sum(p.cpu_times()[:4]) for p in (me, *me.children(recursive=True)))


def ours(model, x, warm):
    """The steps of ``tfcompress.convert_all``, the gate put last."""
    from tfcompress.conversion import source
    from tfcompress.conversion.pipeline import Pipeline
    from tfcompress.conversion.worker import worker

    with tempfile.TemporaryDirectory() as name:
        if warm:
            worker.run("ready", Path(name))
        clock = Clock()
        worker.start()
        pipeline = Pipeline(source.read(model), Path(name))
        pipeline.bind(x)
        row = {"float_bytes": pipeline.float_file.stat().st_size} | clock.read("float_")
        pipeline.ranges()
        row |= clock.read("calibrate_")
        made = {precision: pipeline.write(precision, "float", "litert", ()) for precision in PRECISIONS}
        row |= clock.read("quantize_")
        row["each"] = {precision: seconds for precision, (_, seconds, _) in made.items()}
        row["bytes"] = {precision: path.stat().st_size for precision, (path, _, _) in made.items()}
        for precision, (path, _, notes) in made.items():
            pipeline.check(path, precision, notes)
        row |= clock.read("gate_")
    return row | {unit: row[f"float_{unit}"] + row[f"quantize_{unit}"] for unit in ("seconds", "cpu_seconds")}


def run_row(row, samples):
    """In the child: measure one row, print it as JSON on the last line."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import warnings

    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    model, x, what = build(row["model"]), images(samples), row["what"]
    measured = ours(model, x, warm=what == "ours") if what.startswith("ours") else plain(model, what.split()[1], x)
    print(json.dumps(row | {"samples": samples, "load": os.getloadavg()[0]} | measured))


def plan(repeats):
    """Rows in the order they are measured: the two that are compared take turns."""
    rows = []
    for model in MODELS:
        for repeat in range(repeats):
            rows += [{"model": model, "what": what, "repeat": repeat} for what in ("plain float32", "ours")]
        rows.append({"model": model, "what": "ours, cold", "repeat": 0})
        rows += [{"model": model, "what": f"plain {p}", "repeat": 0} for p in PRECISIONS[1:] if p != "int4"]
    return rows


def measure(rows, samples):
    RESULTS.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    known = {(r["model"], r["what"], r["repeat"]) for r in done}
    for row in rows:
        if (row["model"], row["what"], row["repeat"]) in known:
            continue
        print(f"{row['model']}, {row['what']}, run {row['repeat'] + 1} ...", flush=True)
        command = [sys.executable, __file__, "--row", json.dumps(row), "--samples", str(samples)]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            print(f"  failed: {answer.stderr.strip().splitlines()[-1:]}")
            continue
        done.append(json.loads(answer.stdout.strip().splitlines()[-1]))
        with RESULTS.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    return done


def show(rows):
    """Print the comparison; returns whether every model meets the goal."""
    good = True
    for model in MODELS:
        mine = [r for r in rows if r["model"] == model]

        def median(what, key="seconds", mine=mine):
            values = [r[key] for r in mine if r["what"] == what]
            return statistics.median(values) if values else float("nan")

        print(f"\n{model}: one plain float conversion against our six precisions")
        for unit, title in (("seconds", "wall"), ("cpu_seconds", "processor")):
            single, six = median("plain float32", unit), median("ours", unit)
            print(f"  {title:9} {single:6.1f} s and {six:6.1f} s = {six / single:.2f} x (goal {GOAL} x)")
        good &= six <= GOAL * single
        steps = ("float", "quantize", "calibrate", "gate")
        parts = [f"{step} {median('ours', f'{step}_seconds'):.1f} s" for step in steps]
        print(f"  ours, wall: {', '.join(parts[:2])}; apart from it: {', '.join(parts[2:])}; ", end="")
        print(f"with the child's start {median('ours, cold'):.1f} s")
        print(f"  {'precision':9} {'ours s':>8} {'plain s':>8} {'ours MB':>8} {'plain MB':>9}")
        last = next(r for r in reversed(mine) if r["what"] == "ours")
        for precision in PRECISIONS:
            theirs = [r for r in mine if r["what"] == f"plain {precision}"]
            seconds = last["float_seconds"] if precision == "float32" else last["each"][precision]
            other = f"{median(f'plain {precision}'):8.1f}" if theirs else f"{'-':>8}"
            size = f"{theirs[-1]['bytes'][precision] / 1e6:9.2f}" if theirs else f"{'-':>9}"
            print(f"  {precision:9} {seconds:8.2f} {other} {last['bytes'][precision] / 1e6:8.2f} {size}")
    print("\nplain int8 and int16x8 include their calibration runs.")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32, help="calibration images")
    parser.add_argument("--repeats", type=int, default=3, help="runs of what is compared")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rows")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        return run_row(options.row, options.samples)
    if options.fresh:
        RESULTS.unlink(missing_ok=True)
    return 0 if show(measure(plan(options.repeats), options.samples)) else 1


if __name__ == "__main__":
    sys.exit(main())
