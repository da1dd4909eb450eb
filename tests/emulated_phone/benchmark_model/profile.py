"""--enable_op_profiling: a table in the real tool's layout; each node gets an equal share of the mean time."""

from emulated_phone.benchmark_model.log import info

TITLES = ("node type", "first", "avg_ms", "%", "cdf%", "mem KB", "times called", "name")


def show(flags, interpreter, timed) -> None:
    nodes = [node["op_name"] for node in interpreter._get_ops_details() if node["op_name"] != "DELEGATE"]
    text = _table(nodes, timed) if flags["op_profiling_output_mode"] == "csv" else _columns(nodes, timed)
    head = "Operator-wise Profiling Info for Regular Benchmark Runs:"
    path = flags["op_profiling_output_file"]
    if not path:
        return info(f"{head}\n{text}")
    try:
        with open(path, "w") as file:
            file.write(f"{head}\n{text}")
    except OSError:
        return


def _table(nodes: list[str], timed) -> str:
    milliseconds, share = timed.mean / 1000 / len(nodes), 100 / len(nodes)
    rows = [
        f"{name}, {milliseconds:g}, {milliseconds:g}, {share:g}%, {share * (k + 1):g}%, 0, 1, {name}:{k}"
        for k, name in enumerate(nodes)
    ]
    body = "\n".join([", ".join(TITLES), *rows])
    return (f"============================== Run Order ==============================\n{body}\n\n"
            f"============================== Top by Computation Time ==============================\n{body}\n\n"
            f"Number of nodes executed: {len(nodes)}\n")  # fmt: skip


def _columns(nodes: list[str], timed) -> str:
    milliseconds, share = timed.mean / 1000 / len(nodes), 100 / len(nodes)
    rows = [
        f"\t{name:>40}\t{milliseconds:9.3f}\t{milliseconds:9.3f}\t{share:7.3f}%\t{share * (k + 1):7.3f}%\t{0:10.3f}"
        f"\t{1:9}\t{name}:{k}"
        for k, name in enumerate(nodes)
    ]
    head = (f"\t{'[node type]':>40}\t{'[first]':>9}\t{'[avg ms]':>9}\t{'[%]':>8}\t{'[cdf%]':>8}\t{'[mem KB]':>10}"
            "\t[times called]\t[Name]")  # fmt: skip
    body = "\n".join([head, *rows])
    return (f"============================== Run Order ==============================\n{body}\n\n"
            f"============================== Top by Computation Time ==============================\n{body}\n\n"
            f"Number of nodes executed: {len(nodes)}\n")  # fmt: skip
