"""``students``: small students by depth and by width, each trained with a teacher and without it, and their report."""

import contextlib
import dataclasses

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet


def students_command(argv):
    values = flag_values()
    flags.DEFINE_float("budget", None, "parameters of a student; below 1 a share of the teacher's (default: the "
                       "preset's, 0.1 of most)", flag_values=values)
    flags.DEFINE_list("scalings", None, "width,depth,balanced (default: the preset's, all)", flag_values=values)
    flags.DEFINE_list("blocks", None, "basic,bottleneck,inverted (default: the preset's)", flag_values=values)
    flags.DEFINE_list("seeds", None, "each trains a teacher and all students (default: the preset's, 0,1,2 of most)",
                      flag_values=values)
    flags.DEFINE_string("folder", None, "where files and rows go; the same command goes on from there (default: "
                        "runs/students/PRESET)", flag_values=values)
    (name,) = parse(values, argv, "students PRESET --budget 0.1 --scalings width,depth,balanced", 1,
                    "PRESET: digits or ecg (hours on 2 cores: begin with --seeds 0 --blocks basic), tiny (2 minutes: "
                    "tries the machinery, its accuracies mean nothing). A report after each seed; a folder takes "
                    "more seeds, scalings and blocks later.")
    given = {flag: values[flag].value for flag in ("budget", "scalings", "blocks", "seeds")}
    given = {flag: tuple(value) if isinstance(value, list) else value for flag, value in given.items()
             if value is not None}
    if "seeds" in given:
        if not all(seed.isdigit() for seed in given["seeds"]):
            raise ValueError(f"--seeds are whole numbers, such as 0,1,2. Received: {','.join(given['seeds'])}.")
        given["seeds"] = tuple(map(int, given["seeds"]))
    with quiet():
        from tfcompress import training
        from tfcompress.study.students.config import preset
        from tfcompress.study.students.run import run_students
    config = dataclasses.replace(preset(name), **given)
    with contextlib.suppress(RuntimeError):  # TensorFlow already runs: a caller from Python chose its threads
        training.pin_threads(1)
    print(f"Report: {run_students(config, values.folder).resolve()}")
