"""Why a run of benchmark_model gave no numbers, in words that say what to do next."""

import re

from android_bench.logs.log_lines import Line, printable

_EXITS = {
    124: "it ran into the time limit: give it more time, or fewer runs",
    126: "the binary can't be executed: wrong ABI, or a folder without exec rights; use /data/local/tmp",
    127: "the binary is not on the device: push it again",
    132: "illegal instruction: the binary needs a newer CPU; take the build of this device's ABI",
    134: "it aborted",
    135: "bus error: often two libraries of different versions (NPU dispatch library and runtime)",
    136: "arithmetic exception in the tool or a driver",
    137: "killed, most likely out of memory: free memory, or use a smaller model or batch",
    139: "crashed (segmentation fault) in the tool or a driver: try another delegate or benchmark_model",
    143: "it was told to stop (SIGTERM)",
    255: "the connection broke, or the shell could not start: run it again",
}
_SHELL_WORDS = {
    "Killed": 137, "Segmentation fault": 139, "Bus error": 135, "Illegal instruction": 132,
    "Floating point exception": 136, "Aborted": 134, "Terminated": 143,
}  # fmt: skip
_SIGNS = re.compile(  # the run failed, whatever its exit code
    r"^(?:Benchmarking failed|Failed to parse flag|usage: )|not executable: |inaccessible or not found$"
    r"|can't execute: |^CANNOT LINK EXECUTABLE|only position independent executables",
    re.M,
)
# A telling message -> what it means; the first that is found wins, so those that name the cause stand before those
# that name its consequence. Every gap is bounded: a hostile log must not make a search slow.
_CAUSES = [(re.compile(pattern, re.M), words) for pattern, words in (
    # the shell and the loader
    (r"not executable: ([^\n]{1,100})|Exec format error",
     "wrong ABI: this device can't run the binary ({0}); take the build of one of its ABIs"),
    (r"can't execute: Permission denied",
     "permission denied: the binary lies in a folder without exec rights or lacks chmod 755; use /data/local/tmp"),
    (r"taskset: inaccessible or not found$", "this phone has no taskset: measure without --cores"),
    (r"inaccessible or not found$", "the binary is not on the device: push it again"),
    (r"only position independent executables", "the binary is not position independent (PIE): take an official build"),
    (r"^CANNOT LINK EXECUTABLE[^\n]{0,300}?library \"([^\"\n]{1,200})\" not found",
     "the shared library {0} is missing: push it beside the binary and set LD_LIBRARY_PATH"),
    # flags
    (r"^Failed to parse flag '([^'\n]{1,80})' against argv '([^\n]{1,200}?)'$",
     "the tool can't read {1}: give --{0} a value of its type"),
    (r"^usage: ", "it only printed its help"),
    (r"^Please specify the name of your TF Lite input file", "no model reached the tool: write --graph=FILE, with ="),
    (r"^num_threads should be >= 0", "num_threads must be -1, 0 or more"),
    (r"^List signatures from the provided model: \[1\]", "it only listed the model's signatures (--list_signatures)"),
    (r"^Signature not specified or incorrect[^\n]{0,200}\n #> Signature key: ([^\n]{1,200})",
     "the model has no such signature, or several: ask for one of its own, as {0}"),
    # the model file
    (r"^Could not open '([^\n]{1,300}?)'", "the model {0} is not on the device, or unreadable: push it again"),
    (r"^mmap of size 0 requested", "the model file is empty: push it again"),
    (r"^Mmap of '[^\n]{1,80}' failed", "the model can't be mapped: --graph must name a file, not a folder"),
    (r"not a valid Flatbuffer", "the model file is damaged or no .tflite: push it again"),
    (r"unresolved custom op: ([\w.:/-]{1,100}?)\.?$",
     "unresolved custom op {0}: use a benchmark_model that has it, or convert the model without it"),
    (r"^Select TensorFlow op\(s\)", "the model has TensorFlow (Flex) ops: use the ..._plus_flex binary of "
     "benchmark_model, or convert with built-in ops only"),
    (r"^Didn't find op for builtin opcode '([^\n]{1,80}?)' version '([^\n]{1,20}?)'",
     "benchmark_model is older than the model: it lacks {0} version {1}; take a newer binary"),
    # inputs
    (r"^The size of ([^\n]{1,300}) is (\d{1,20}) bytes\. It should be (\d{1,20}) bytes",
     "the input file {0} has {1} bytes but the model takes {2}: check its shape and dtype"),
    (r"^Failed to read the input_layer_value_file:([^\n]{1,300})",
     "the input file {0} is not on the device, or unreadable: push it again"),
    (r"^Cannot find the corresponding input_layer name\(([^\n]{1,200}?)\)",
     "--input_layer_value_files names {0}, which --input_layer does not: use the same name in both"),
    (r"^Inputs mismatch: Model inputs #:(\d{1,9}) expected: (\d{1,9})",
     "{0} input was given but the model has {1}: give them all, in the model's order"),
    (r"^The number of items in --input_layer_shape", "each --input_layer needs one --input_layer_shape"),
    (r"^Any unknown sizes in the shapes", "-1 in --input_layer_shape: write the size to benchmark with"),
    (r"contains more than one delimiter", "a name or path in --input_layer_value_files holds ':': write it '::'"),
    (r"^Input tensor #(\d{1,9}) should have (\d{1,9}) dimensions",
     "--input_layer_shape of input {0} must have {1} dimensions"),
    (r"num_input_elements != num_output_elements \(([^)\n]{1,80})\)|^XNNPack delegate failed to reshape runtime",
     "the model refuses this input shape or batch ({0}): keep the shape in the file, one sample a run"),
    # delegates
    (r"^Disallowed CPU fallback detected", "the delegate doesn't take the whole graph: drop require_full_delegation"),
    (r"^No GPU detected|^Can not open OpenCL library", "no GPU that OpenCL can use: run it on the CPU"),
    (r"^TfLiteGpuDelegate (?:Init|Prepare): ([^\n]{1,200})", "the GPU delegate refuses the model ({0}): use the CPU"),
    (r"^Failed to apply (\w{1,60}) delegate", "the {0} delegate could not be applied: use the CPU"),
    # running
    (r"std::bad_alloc", "out of memory (std::bad_alloc): free memory, or use a smaller model or batch"),
    (r"^([^\n]{1,300})\nNode number (\d{1,9}) \(([^\n]{1,100}?)\) failed to prepare",
     "op {2} (node {1}) can't be prepared ({0}): try another delegate, a newer benchmark_model or another precision"),
    (r"^([^\n]{1,300})\nNode number (\d{1,9}) \(([^\n]{1,100}?)\) failed to invoke",
     "op {2} (node {1}) failed while running ({0}): random inputs may be out of its range, give real ones"),
)]  # fmt: skip


def failure(lines: list[Line], exit_code: int | None) -> str | None:
    """What went wrong and what to do, or None if the run ended well.

    Args:
        lines: of the log.
        exit_code: of the tool; above 128, or negative as Python's subprocess has it, it names a signal. None = lost.

    >>> failure([Line("", "Killed")], 137)
    'killed, most likely out of memory: free memory, or use a smaller model or batch (exit code 137)'
    >>> failure([Line("INFO", "STARTING!")], 0) is None
    True
    """
    if exit_code is not None and exit_code < 0:
        exit_code = 128 - exit_code
    body = "\n".join(line.message for line in lines)
    fatal = next((line.message for line in lines if line.level == "FATAL"), None)
    died = _died(lines)
    if not exit_code and not died and fatal is None and not _SIGNS.search(body):
        return None
    code = exit_code or died
    cause = _cause(body) or fatal or _EXITS.get(code) or _first_error(lines) or "it failed without a word"
    return printable(cause, 500) + (f" (exit code {code})" if code else "")


def _died(lines: list[Line]) -> int | None:
    """The exit code behind a shell's "Killed" and the like; the tool's and drivers' lines hold other text too."""
    for line in lines:
        if not line.level:
            for word, code in _SHELL_WORDS.items():
                if line.message in (word, f"{word} (core dumped)"):
                    return code
    return None


def _cause(body: str) -> str | None:
    for pattern, words in _CAUSES:
        if found := pattern.search(body):
            return words.format(*(printable(group or found[0], 200) for group in found.groups()))
    return None


def _first_error(lines: list[Line]) -> str | None:
    """The first error tells the cause; those after it repeat it for each caller."""
    errors = [line.message for line in lines if line.level == "ERROR" and line.message != "Benchmarking failed."]
    return errors[0] if errors else (f"last line: {lines[-1].message}" if lines else None)
