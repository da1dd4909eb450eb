"""A process that tries settings of a job's stages: ``python -m tfcompress.job.worker``, as ``study.worker``."""

import shutil
from pathlib import Path

from tfcompress.study.worker import main


def work(config, name, control, output):
    """One trial: all stages of ``config["plan"]`` behind the control, and what came of them.

    Args:
        config: ``plan``, a resolved job, and ``control``, the row of the control.
        name: number of the trial.
        control: path of the control, .keras.
        output: path of the .tflite to write; a folder of this name without ending is worked in.
    """
    from android_bench.store import write_file
    from tfcompress import tasks
    from tfcompress.convert import convert
    from tfcompress.job import finish, plan, run
    from tfcompress.job.folder import load, rows_of

    folder, resolved = Path(output).with_suffix(""), config["plan"]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.jsonl").exists():
        shutil.copyfile(control, folder / "control.keras")
        convert(tasks.find(resolved["job"]["task"]).export(load(folder, "control"))).save(folder / "control.tflite")
        rows_of(folder).append(config["control"])
    data = plan.load(plan.check(resolved))
    rows = run.work(folder, resolved, data, say=lambda line: None)
    shipped = finish.shipped(folder, resolved, data, rows)
    write_file(output, (folder / shipped["file"]).read_bytes())
    return {"score": shipped["score"], "loss": shipped["loss"], "cost": shipped["cost"],
            "stages": finish.decided(resolved, rows)}


if __name__ == "__main__":
    main(work)
