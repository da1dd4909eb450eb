"""The tool's flags: `--name=value` and nothing else; what it doesn't know it warns of and goes on."""

import os

from emulated_phone.benchmark_model.log import Stop, error

HELP = os.path.join(os.path.dirname(__file__), "../../golden/benchmark_model/help.txt")
FLAGS = {  # in the order of the log: name -> (default, the log's words)
    "num_runs": (50, "Min num runs"),
    "min_secs": (1.0, "Min runs duration (seconds)"),
    "max_secs": (150.0, "Max runs duration (seconds)"),
    "run_delay": (-1.0, "Inter-run delay (seconds)"),
    "run_frequency": (-1.0, "Number of prorated runs per second"),
    "num_threads": (-1, "Num threads"),
    "use_caching": (False, "Use caching"),
    "benchmark_name": ("", "Benchmark name"),
    "output_prefix": ("", "Output prefix"),
    "warmup_runs": (1, "Min warmup runs"),
    "warmup_min_secs": (0.5, "Min warmup runs duration (seconds)"),
    "dry_run": (False, "Run w/o invoking kernels"),
    "report_peak_memory_footprint": (False, "Report the peak memory footprint"),
    "memory_footprint_check_interval_ms": (50, "Memory footprint check interval (ms)"),
    "graph": ("", "Graph"),
    "signature_to_run_for": ("", "Signature to run"),
    "list_signatures": (False, "List signatures from the provided model"),
    "input_layer": ("", "Input layers"),
    "input_layer_shape": ("", "Input shapes"),
    "input_layer_value_range": ("", "Input value ranges"),
    "input_layer_value_files": ("", "Input value files"),
    "allow_fp16": (False, "Allow fp16"),
    "require_full_delegation": (False, "Require full delegation"),
    "enable_op_profiling": (False, "Enable op profiling"),
    "op_profiling_output_mode": ("stdout", "Op profiling output mode."),
    "op_profiling_output_file": ("", "Op profiling output file."),
    "max_profiling_buffer_entries": (1024, "Max initial profiling buffer entries"),
    "allow_dynamic_profiling_buffer_increase": (False, "Allow dynamic increase on profiling buffer entries"),
    "profiling_output_csv_file": ("", "CSV File to export profiling data to"),
    "export_model_runtime_info": (False, "Enable Model Runtime Info Export"),
    "model_runtime_info_output_file": ("", "Proto File to export model runtime info to"),
    "print_preinvoke_state": (False, "Print pre-invoke interpreter state"),
    "print_postinvoke_state": (False, "Print post-invoke interpreter state"),
    "release_dynamic_tensors": (False, "Release dynamic tensor memory"),
    "optimize_memory_for_large_tensors": (0, "Optimize memory usage for large tensors"),
    "disable_delegate_clustering": (False, "Disable delegate clustering"),
    "enable_builtin_cast_constant_cache": (False, "Constant CAST output cache"),
    "output_filepath": ("", "File path to export outputs layer to"),
    "output_proto_filepath": ("", "File path to export outputs layer as tf example to"),
    "result_file_path": ("", "File path to save the benchmark result in binary proto format"),
    "tensor_name_display_length": (25, "Tensor name display length"),
    "tensor_type_display_length": (15, "Tensor type display length"),
    "alloc_type_display_length": (18, "Tensor allocation type display length"),
    "help": (False, "print out all supported flags"),
    " num_threads": (-1, "#threads used for CPU inference"),  # the same flag, logged twice
    "max_delegated_partitions": (0, "Max number of delegated partitions"),
    "min_nodes_per_partition": (0, "Min nodes per partition"),
    "first_delegate_node_index": (0, "Index of the first node that could be delegated"),
    "last_delegate_node_index": (2147483647, "Index of the last node that could be delegated"),
    "gpu_invoke_loop_times": (1, "Number of GPU delegate invoke loop iterations"),
    "delegate_serialize_dir": ("", "Directory for delegate serialization"),
    "delegate_serialize_token": ("", "Model-specific token/key for delegate serialization."),
    "external_delegate_path": ("", "External delegate path"),
    "external_delegate_options": ("", "External delegate options"),
}
ANDROID = {
    "use_gpu": (False, "Use gpu"),
    "gpu_precision_loss_allowed": (True, "Allow lower precision in gpu"),
    "gpu_experimental_enable_quant": (True, "Enable running quant models in gpu"),
    "gpu_inference_for_sustained_speed": (False, "Prefer maximizing the throughput in gpu"),
    "gpu_backend": ("", "GPU backend"),
    "use_hexagon": (False, "Use Hexagon"),
    "hexagon_lib_path": ("/data/local/tmp/", "Hexagon lib path"),
    "hexagon_profiling": (False, "Hexagon profiling"),
    "use_nnapi": (False, "Use NNAPI"),
    "nnapi_execution_preference": ("", "NNAPI execution preference"),
    "nnapi_accelerator_name": ("", "NNAPI accelerator name"),
    "disable_nnapi_cpu": (True, "Disable NNAPI cpu"),
    "nnapi_allow_fp16": (False, "Allow fp16 in NNAPI"),
}
LAST = {
    "use_xnnpack": (False, "Use xnnpack"),
    "xnnpack_force_fp16": (False, "xnnpack_force_fp16"),
    "xnnpack_weight_cache_file_path": ("", "xnnpack_weight_cache_file_path"),
    "xnnpack_runtime_flags": (0, "Extra flags for XNNPACK runtime"),
}
BOOLS = {"true": True, "1": True, "false": False, "0": False}


class Values(dict):
    """Name -> value of every flag; `given`: those the command line named; `unknown`: words nobody took."""

    given: set[str]
    unknown: list[str]
    known: dict

    def log(self, verbose: bool) -> list[str]:
        """The lines `Words: [value]` of what was given, or of everything."""
        lines = [f"Log parameter values verbosely: [{int(verbose)}]"]
        for name, (_, words) in self.known.items():
            name = name.strip()
            if verbose and name != "list_signatures" or name in self.given or name == "signature_to_run_for":
                value = self[name]
                value = int(value) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
                lines.append(f"{words}: [{value}]")
        return lines


def parse(arguments: list[str], android: bool) -> Values:
    """The flags' values; `Stop` after the usage for a value that can't be read, and for `--help`."""
    values = Values()
    values.known = FLAGS | (ANDROID if android else {}) | LAST
    values.update({name: default for name, (default, _) in values.known.items()}, verbose=False)
    values.given, values.unknown = set(), []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals and name != "help" or name not in values or name in values.given:
            values.unknown.append(argument)
            continue
        value = _value(text or "true" if name == "help" else text, values[name])
        if value is None:
            error(f"Failed to parse flag '{name}' against argv '{argument}'")
            usage(android)
        values[name] = value
        values.given.add(name)
    return values


def usage(android: bool) -> None:
    """The real tool's text, then the end."""
    with open(HELP) as file:
        lines = [line.rstrip("\n") for line in file if line.startswith(("ERROR: usage", "Flags:", "\t--"))]
    if android:
        words = {bool: "bool", int: "int32", float: "float", str: "string"}
        for name, (default, text) in ANDROID.items():
            shown = str(default).lower() if isinstance(default, bool) else default
            lines.append(f"\t{f'--{name}={shown}':47}\t{words[type(default)]}\toptional\t{text}")
    error("\n".join(lines).removeprefix("ERROR: ") + "\n")
    raise Stop("Benchmarking failed.")


def _value(text: str, default):
    """As a C++ stream reads it: "1.5" is the integer 1, "1s" the number 1, "abc" none."""
    if isinstance(default, bool):
        return BOOLS.get(text)
    if isinstance(default, str):
        return text
    allowed = "0123456789+-" if isinstance(default, int) else "0123456789+-.e"
    size = 0
    while size < len(text) and text[size] in allowed:
        size += 1
    for end in range(size, 0, -1):
        try:
            return type(default)(text[:end])
        except ValueError:
            continue
    return None
