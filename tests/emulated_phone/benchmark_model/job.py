"""Load, initialise, warm up, measure, write: the order of events in BenchmarkTfLiteModel."""

import os
import resource
import sys
import time

from emulated_phone.benchmark_model import delegates, report
from emulated_phone.benchmark_model.inputs import Arrays, Layers
from emulated_phone.benchmark_model.log import Stop, error, info
from emulated_phone.benchmark_model.main import die, take_fault
from emulated_phone.benchmark_model.runs import repeat


def run(flags, tool: str, arguments: list[str]) -> int:
    """The exit code."""
    layers = Layers(flags)
    for line in flags.log(flags["verbose"]):
        if tool == "tflite" or not line.startswith("Signature to run"):
            info(line)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    arrays = Arrays()
    begin_kb, begin = memory_kb(), time.perf_counter_ns()
    plain = "use_xnnpack" in flags.given and not flags["use_xnnpack"]
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    threads = flags["num_threads"] if flags["num_threads"] > 0 else None
    if tool == "litert2":
        report.litert2_start(flags["graph"])
    try:
        interpreter = Interpreter(flags["graph"], experimental_op_resolver_type=resolver, num_threads=threads)
    except (ValueError, RuntimeError) as problem:
        for line in delegates.lines(str(problem)):
            error(line)
        raise Stop(f"Failed to load model {flags['graph']}") from None
    if tool == "tflite":
        info(f"Loaded model {flags['graph']}")
    if flags["num_threads"] < -1:
        error("num_threads should be >= 0 or just -1 to let TFLite runtime set the value.")
        raise Stop("Failed to set thread number")
    _signatures(flags, interpreter)
    layers.resize(interpreter)
    half = delegates.apply(flags, interpreter)
    init_us = (time.perf_counter_ns() - begin) // 1000
    init_kb = memory_kb() - begin_kb
    info(f"The input model file size (MB): {os.path.getsize(flags['graph']) / 1e6:g}")
    info(f"Initialized session in {init_us / 1000:g}ms.")
    _faults(arguments)
    layers.fill(interpreter, arrays)
    return _measure(flags, tool, interpreter, init_us, (init_kb, begin_kb), half, arguments)


def _measure(flags, tool, interpreter, init_us, kilobytes, half, arguments) -> int:
    failed = [""]

    def once() -> None:
        try:
            interpreter.invoke()
        except (RuntimeError, ValueError) as problem:
            for line in delegates.lines(str(problem).removeprefix(failed[-1])):  # it repeats what it said before
                error(line)
            failed.append(str(problem))

    dry = flags["dry_run"]
    gap = (flags["run_delay"], flags["run_frequency"])
    warm_up = repeat(once, *((0, -1) if dry else (flags["warmup_runs"], flags["warmup_min_secs"])), flags["max_secs"],
                     *gap)  # fmt: skip
    if len(failed) > 1:
        raise Stop("Benchmarking failed.")
    timed = repeat(once, *((0, -1) if dry else (flags["num_runs"], flags["min_secs"])), flags["max_secs"], *gap)
    overall_kb = memory_kb() - kilobytes[1]
    if flags["output_filepath"] and take_fault("no_output_file", arguments) is None:
        _save_outputs(interpreter, flags["output_filepath"], half)
    report.finish(flags, tool, init_us, warm_up, timed, kilobytes[0], overall_kb, interpreter)
    if len(failed) > 1:
        raise Stop("Benchmarking failed.")
    return 0


def _signatures(flags, interpreter) -> None:
    keys = list(interpreter.get_signature_list())
    if flags["list_signatures"]:
        info(f"The Model contains {len(keys)} signature key(s).")
        info("They are listed below: ")
        for key in keys:
            info(f"-> Signature Key: {key}")
        raise Stop("Benchmarking failed.")
    wanted = flags["signature_to_run_for"]
    if wanted in keys:
        info(f"Using signature: {wanted}")
    elif wanted or len(keys) > 1:
        error('Signature not specified or incorrect. Pass one of the following to the flag "--signature_to_run_for"')
        for key in keys:
            error(f" #> Signature key: {key}")
        raise Stop("Benchmarking failed.")


def _save_outputs(interpreter, path: str, half: bool) -> None:
    """The bytes of all outputs, one after the other; a path that can't be written is passed over in silence."""
    try:
        with open(path, "wb") as file:
            for detail in interpreter.get_output_details():
                array = interpreter.get_tensor(detail["index"])
                if half and array.dtype == "float32":
                    array = array.astype("float16").astype("float32")
                file.write(array.tobytes())
    except OSError:
        return


def _faults(arguments: list[str]) -> None:
    """What a phone was told to do to the next run, once the model is loaded."""
    for kind, name in (("killed", "SIGKILL"), ("crash", "SIGSEGV")):
        options = take_fault(kind, arguments)
        if options is not None and options.get("after"):
            import threading

            threading.Timer(options["after"], die, [name]).start()
        elif options is not None:
            die(name)
    if take_fault("hang_benchmark", arguments) is not None:
        sys.stdout.flush()
        time.sleep(1e6)


def memory_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
