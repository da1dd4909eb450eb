"""A student of a study's control, and all of it: distilled, factorised, filter-pruned, int8; its row joins the report.

    scripts/quickstart                                   # the study, where runs/digits is not there yet
    .venv/bin/python scripts/student_of_study.py [--folder runs/digits] [--net image_resnet] [--width 8]

The control is the teacher throughout. At each step the student's own `.tflite` is judged on the whole test set; the
last is also compared with the quantization-aware Keras model that it was made of, on the same test set. Row:
scripts/results/student_of_study.jsonl.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

import tfcompress as tc
from android_bench.store import Store
from tfcompress import measure, training, zoo
from tfcompress.study.cell import read_data
from tfcompress.study.presets import StudyConfig
from tfcompress.study.run import add_to_study

RESULTS = Path(__file__).parent / "results" / "student_of_study.jsonl"
TUNE = dict(learning_rate=1e-3, warmup=0.05)  # batch norm is folded by now


def main(options) -> None:
    folder = Path(options.folder)
    config = StudyConfig.from_dict(json.loads((folder / "config.json").read_text()))
    store = Store(RESULTS, key=("study", "net"))
    if (config.name, options.net) in store:
        raise SystemExit(f"{RESULTS} has a row of {config.name}, {options.net}: remove it to train again.")
    splits, seed = read_data(config), config.seed
    teacher = keras.models.load_model(folder / "control.keras", compile=False)
    data, calibration = (splits.x_train, splits.y_train), splits.x_train[:500]
    row = {"study": config.name, "net": options.net, "teacher_parameters": teacher.count_params(), "steps": []}

    def learn(model, recipe):
        training.fit(tc.Distiller(model, teacher), splits, recipe, seed=seed)

    def judge(step, file):
        found = measure.evaluate(file, splits.x_test, splits.y_test).accuracy
        row["steps"].append({"step": step, "accuracy": found, "bytes": len(file.content),
                             "macs": tc.inspect(file.content).macs})  # fmt: skip
        print(f"{step:12} {100 * found:6.2f} %  {len(file.content):>9,} bytes  {row['steps'][-1]['macs']:>12,} MACs")
        return found

    judge("teacher", tc.convert(teacher))
    student = zoo.build(options.net, splits.input_shape, splits.classes, seed=seed, width=options.width)
    learn(student, config.control)
    judge("distilled", tc.convert(student))
    tune = replace(config.control, **TUNE)
    student = tc.factorize(student, 0.7, data=data).model
    learn(student, tune)
    judge("factorised", tc.convert(student))
    student = tc.prune_filters(student, data, 0.7, criterion="behaviour", rounds=2).model
    learn(student, tune)
    judge("pruned", tc.convert(student))
    aware = tc.quantize_aware(student)
    tc.calibrate(aware, calibration)
    learn(aware, replace(tune, epochs=3, learning_rate=5e-4))
    file = tc.convert(aware, "int8")
    accuracy = judge("int8", file)
    own = float((aware.predict(splits.x_test, verbose=0).argmax(-1) == np.asarray(splits.y_test)).mean())
    row["keras"], row["points_from_keras"] = own, 100 * (accuracy - own)
    print(f"its Keras self {100 * own:6.2f} %: the file is {row['points_from_keras']:+.2f} points from it")
    path = folder / "student.tflite"
    file.save(path)
    print("Report:", add_to_study(folder, {"student": path}, "distilled, factorised, filter-pruned, int8"))
    store.append(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/digits")
    parser.add_argument("--net", default="image_resnet")
    parser.add_argument("--width", type=int, default=8)
    main(parser.parse_args())
