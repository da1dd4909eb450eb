"""Many runs of the stand-in, each in a fork of a process that has loaded LiteRT already: 10 ms a run and not 130.

python many.py SITE_PACKAGES <JOBS: stdin takes a list of {"command": words, "environment": {}} as JSON; stdout gives a
list of [exit code as a shell would say it, stdout and stderr in one].
"""

import json
import os
import sys

sys.path[:1] = [os.path.abspath(f"{__file__}/../../.."), sys.argv[1]]

import ai_edge_litert.interpreter  # noqa: E402, F401

from emulated_phone.benchmark_model.main import main  # noqa: E402


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.closerange(3, 10)
        os.environ.update(environment)
        main(sys.argv[1], "tflite", "183", command)
    os.close(into)
    with open(out, errors="replace") as file:
        text = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (code if code >= 0 else 128 - code), text


json.dump([run(job["command"], job["environment"]) for job in json.load(sys.stdin)], sys.stdout)
