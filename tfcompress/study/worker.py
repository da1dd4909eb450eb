"""A process that makes variants, one after the other: `python -m tfcompress.study.worker`.

Jobs come in as JSON lines, answers go out as JSON lines. TensorFlow is imported once and runs on one thread, so that
a job gives the same bytes whichever worker does it, and whatever that worker did before.
"""

import functools
import json
import os
import threading
import time
import traceback
from pathlib import Path

CONTROL = "control"  # the job that trains the base net; every other job needs its file


def main(work) -> None:
    """Do the jobs that come in with `work(**job)`, until the parent is gone."""
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    pin()
    for line in jobs:
        job = json.loads(line)
        try:
            answer = {"record": work(**job)}
        except Exception as error:  # noqa: BLE001 - one failed cell must not end the study; the parent reports it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def pin() -> None:
    """One thread, and only operations that give the same sums each time."""
    import tensorflow as tf

    from tfcompress.training import pin_threads

    pin_threads(1)
    tf.config.experimental.enable_op_determinism()


def work(config: dict, name: str, control: str, output: str) -> dict:
    """Do one job: train the control into `control` (.keras), or make the cell `name` into `output` (.tflite)."""
    from android_bench.store import write_file

    from .cell import make_variant, train_control
    from .presets import StudyConfig

    study = StudyConfig.from_dict(config)
    splits = _data(json.dumps(config, sort_keys=True))
    if name == CONTROL:
        model, record = train_control(study, splits)
        part = Path(f"{control}.{os.getpid()}.part.keras")
        model.save(part)
        os.replace(part, control)
        size = os.path.getsize(control)  # with the optimizer's slots, as `fit` leaves it
        return record | {"data": str(splits), "licence": splits.licence, "keras_bytes": size}
    cell = next(cell for cell in study.cells() if cell.id == name)
    record, content = make_variant(study, cell, control, splits)
    write_file(output, content)
    return record


@functools.lru_cache(maxsize=1)
def _data(config: str):
    from .cell import read_data
    from .presets import StudyConfig

    return read_data(StudyConfig.from_dict(json.loads(config)))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone (killed, say): nobody would read its answer."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(work)
