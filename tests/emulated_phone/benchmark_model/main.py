"""The tool from its first line to its exit code."""

import os
import sys
import time

from emulated_phone.benchmark_model import flags as flag_list
from emulated_phone.benchmark_model.log import Abort, Stop, error, info, warn

PHONE = os.environ.get("EMULATED_PHONE", "")
PACE = os.environ.get("EMULATED_PACE", "")
LITERT2_FLAGS = {"use_cpu": (True, "Use CPU"), "use_npu": (False, "Use NPU"), "gpu_precision": ("", "GPU precision")}
LITERT2_LACKS = ("input_layer", "input_layer_shape", "input_layer_value_range", "input_layer_value_files",
                 "output_filepath", "output_proto_filepath", "signature_to_run_for", "list_signatures")  # fmt: skip


def main(packages: str, tool: str, machine: str, command: list[str]) -> None:
    """Does not return.

    Args:
        packages: the folder in which ai_edge_litert lies.
        machine: e_machine of the "binary" that was started.
    """
    program, *arguments = command
    machines = os.environ.get("EMULATED_MACHINES", machine).split(",")
    sys.path.append(packages)
    if machine not in machines or take_fault("wrong_abi", arguments) is not None:
        bits = 32 if machine == "40" else 64
        print(f"/system/bin/sh: {program}: not executable: {bits}-bit ELF file", file=sys.stderr, flush=True)
        sys.exit(126)
    begun = f"{time.monotonic()}\n"
    running = f"{PHONE}/state/load/{os.getpid()}" if PHONE and any("--graph=" in word for word in arguments) else None
    _write(running, begun)
    code = 1
    try:
        code = _run(program, tool, arguments)
    except Stop as stop:
        if str(stop) != "Benchmarking failed.":
            error(str(stop))
        error("Benchmarking failed.")
    except Abort as abort:
        print(f"FATAL: {abort}", file=sys.stderr, flush=True)
        code = None
    _write(running, f"{begun}{time.monotonic()}\n")
    if code is None:
        die("SIGABRT")
    sys.stdout.flush()
    os._exit(code)  # the interpreter's own clean-up takes 20 ms


def _write(path: str | None, text: str) -> None:
    if path:
        with open(path, "w") as file:
            file.write(text)


def _run(program: str, tool: str, arguments: list[str]) -> int:
    android = "EMULATED_GPU" in os.environ
    info("STARTING!")
    flags = flag_list.parse(arguments, android) if tool == "tflite" else _litert2_flags(arguments)
    flags[" num_threads"] = flags["num_threads"]
    flags.given |= {" num_threads"} & {f" {name}" for name in flags.given}
    if flags["profiling_output_csv_file"]:
        flags |= {"op_profiling_output_mode": "csv", "op_profiling_output_file": flags["profiling_output_csv_file"]}
        flags.given |= {"op_profiling_output_mode", "op_profiling_output_file"}
    if flags.unknown:
        warn(f"Unconsumed cmdline flags: {' '.join(flags.unknown)}")
    if flags["help"]:
        flag_list.usage(android)
    if not flags["graph"]:
        raise Stop("Please specify the name of your TF Lite input file with --graph")
    if PACE:
        from emulated_phone.benchmark_model.pace import sleep

        return sleep(flags, float(PACE))
    from emulated_phone.benchmark_model.job import run

    return run(flags, tool, arguments)


def _litert2_flags(arguments: list[str]):
    """The other tool's flags: no input or output files."""
    lacking = tuple(f"--{name}=" for name in LITERT2_LACKS)
    more = tuple(f"--{name}=" for name in LITERT2_FLAGS)
    flags = flag_list.parse([a for a in arguments if not a.startswith(lacking + more)], android=True)
    flags.unknown += [a for a in arguments if a.startswith(lacking)]
    return flags


def take_fault(kind: str, arguments: list[str]) -> dict | None:
    """A planted fault of the phone, for a run on a model."""
    folder = f"{PHONE}/state/faults"
    if not PHONE or not any(name.startswith(f"{kind}.") for name in os.listdir(folder)):
        return None
    from pathlib import Path

    from emulated_phone.faults import Faults

    command = " ".join(arguments)
    return Faults(Path(folder)).take(kind, command) if "--graph=" in command else None


def die(name: str) -> None:
    """By a signal, without a core file."""
    import resource
    import signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = getattr(signal, name)
    if name != "SIGKILL":
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    os.kill(os.getpid(), number)
    time.sleep(10)
