"""``run``: a job file in, a checked ``.tflite`` and its report out."""

import os
import time

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet
from tfcompress.study.pool import ENVIRONMENT


def run_command(argv):
    values = flag_values()
    flags.DEFINE_string("output", None, "its folder (default: runs/<name of JOB>)", short_name="o", flag_values=values)
    flags.DEFINE_bool("plan", False, "only write resolved.yaml, to read or change", flag_values=values)
    flags.DEFINE_integer("workers", 1, "processes that try settings (search)", lower_bound=1, flag_values=values)
    flags.DEFINE_string("ray", None, "address of a Ray cluster that tries settings, or 'local'", flag_values=values)
    (given,) = parse(values, argv, "run JOB.yaml", 1,
                     "JOB.yaml: task, data, model, target, search; or a resolved.yaml. The same command goes on.")
    os.environ.update(ENVIRONMENT)                       # as the workers of a search: bytes are equal on CPUs
    with quiet():
        from tfcompress.job import run
        from tfcompress.job.folder import row_of
        from tfcompress.study.worker import pin
        pin()
    if values.plan:
        with quiet():
            print(run.write_plan(given, values.output))
        return
    started = time.perf_counter()
    with quiet():                                        # LiteRT and converters write to stderr; errors come as such
        page = run.run_job(given, values.output, workers=values.workers, ray=values.ray,
                           say=lambda line: print(line, flush=True))
    print(f"Report: {page.resolve()}   ({time.perf_counter() - started:.0f} s)")
    if row_of(page.parent, "bench")["met"] is False:
        raise RuntimeError("the target is not met: of the files that were tried, no smaller one loses as little as "
                           "`drop` allows. Ask for less, or raise `drop` in a resolved.yaml that --plan writes.")
