"""What the tool says about delegates, and what a phone's GPU and NNAPI do to a run."""

import os

from emulated_phone.benchmark_model.log import Stop, error, info, runtime, warn

ALL = "Explicitly applied {} delegate, and the model graph will be completely executed by the delegate."
PART = ("Explicitly applied {} delegate, and the model graph will be partially executed by the delegate w/ {} delegate"
        " kernels.")  # fmt: skip
NONE = "Though {} delegate is explicitly applied, the model graph will not be executed by the delegate."
REPLACING = "Replacing {} out of {} node(s) with delegate ({}) node, yielding {} partitions for subgraph 0 (main)."
FALLBACK = "Disallowed CPU fallback detected."


def apply(flags, interpreter) -> bool:
    """Apply the delegates that the flags name, log it, and allocate; whether outputs go through half precision."""
    explicit = [name for name in ("use_gpu", "use_nnapi", "use_hexagon", "use_xnnpack") if flags.get(name)]
    external = os.path.exists(flags["external_delegate_path"])
    if flags["require_full_delegation"] and not explicit and not external:
        raise Stop(FALLBACK)
    nodes = len(interpreter._get_ops_details())
    half, everything = False, False
    if flags.get("use_gpu"):
        taken = _gpu(os.environ.get("EMULATED_GPU", ""), nodes, flags)
        half, everything = taken > 0 and flags["gpu_precision_loss_allowed"], taken == nodes
    if flags.get("use_nnapi") and not everything:
        everything = _nnapi(nodes, flags)
    if flags.get("use_hexagon"):
        warn("Could not create Hexagon delegate: platform may not support delegate or required libraries are missing")
    if external and not everything:
        runtime("EXTERNAL delegate created.")
        info(ALL.format("EXTERNAL"))
        everything = True
    if flags["use_xnnpack"] and flags["xnnpack_force_fp16"]:
        runtime("XNNPack FP16 inference enabled.")
        half = True
    _allocate(interpreter, quiet=everything)
    if not everything:
        _xnnpack(flags, interpreter)
    return half


def _gpu(kind: str, nodes: int, flags) -> int:
    """How many nodes the GPU takes."""
    if kind == "not_supported":
        runtime("Created TensorFlow Lite delegate for GPU.")
        info("GPU delegate created.")
        info(NONE.format("GPU"))
        return _none_taken(flags)
    runtime("Created TensorFlow Lite delegate for GPU.")
    info("GPU delegate created.")
    if kind == "fails":
        runtime("Loaded OpenCL library with dlopen.")
        for line in ("No GPU detected.", "Restored original execution plan after delegate application failure."):
            error(line)
        error("Failed to apply GPU delegate.")
        raise Stop("Benchmarking failed.")
    taken = nodes - 1 if kind == "partial" and nodes > 1 else nodes
    if taken < nodes:
        error("Following operations are not supported by GPU delegate:")
        error("SOFTMAX: Operation is not supported.")
        error(f"{taken} operations will run on the GPU, and the remaining {nodes - taken} operations will run on the "
              "CPU.")  # fmt: skip
    runtime(REPLACING.format(taken, nodes, "TfLiteGpuDelegateV2", 1 if taken == nodes else 2), "VERBOSE")
    runtime("Loaded OpenCL library with dlopen.")
    runtime("Initialized OpenCL-based API.")
    runtime("Created 1 GPU delegate kernels.")
    if taken < nodes and flags["require_full_delegation"]:
        raise Stop(FALLBACK)
    info(ALL.format("GPU") if taken == nodes else PART.format("GPU", 1))
    return taken


def _nnapi(nodes: int, flags) -> bool:
    """Whether NNAPI takes the graph: all of it or nothing."""
    if os.environ.get("EMULATED_NNAPI") != "1":
        error("NNAPI delegate is not available on this device: unable to open library libneuralnetworks.so")
        info(NONE.format("NNAPI"))
        return bool(_none_taken(flags))
    info("NNAPI accelerators available: [google-edgetpu,nnapi-reference]")
    runtime("Created TensorFlow Lite delegate for NNAPI.")
    info("NNAPI delegate created.")
    runtime(REPLACING.format(nodes, nodes, "TfLiteNnapiDelegate", 1), "VERBOSE")
    info(ALL.format("NNAPI"))
    return True


def _none_taken(flags) -> int:
    if flags["require_full_delegation"]:
        raise Stop(FALLBACK)
    return 0


def _xnnpack(flags, interpreter) -> None:
    """LiteRT has applied XNNPACK while it allocated, unless the flag was false; say so where the tool does."""
    nodes, kernels, taken, partitions = _partitions(interpreter)
    explicit = flags["use_xnnpack"]
    if explicit:
        info("XNNPACK delegate created.")
    if kernels:
        runtime(REPLACING.format(taken, nodes, "TfLiteXNNPackDelegate", partitions), "VERBOSE")
    if explicit:
        full = kernels == 1 and taken == nodes
        if flags["require_full_delegation"] and not full:
            raise Stop(FALLBACK)
        info(ALL.format("XNNPACK") if full else PART.format("XNNPACK", kernels) if kernels else NONE.format("XNNPACK"))


def _allocate(interpreter, quiet: bool) -> None:
    """Allocate the tensors; `quiet` without the runtime's own words, since XNNPACK is not really meant to be there."""
    kept = os.dup(2)
    try:
        if quiet:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as problem:
        os.dup2(kept, 2)
        for line in lines(str(problem)):
            error(line)
        error("Failed to allocate tensors!")
        raise Stop("Benchmarking failed.") from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def lines(text: str) -> list[str]:
    """The runtime's messages: the interpreter joins them without anything between."""
    for start in ("Node number ", "The model allocation is "):
        text = text.replace(start, "\0" + start)
    return [line for line in text.split("\0") if line]


def _partitions(interpreter) -> tuple[int, int, int, int]:
    """Nodes of the graph, kernels of the delegate, nodes it took, parts in which the graph fell."""
    details = interpreter._get_ops_details()
    nodes = [node for node in details if node["op_name"] != "DELEGATE"]
    kernels = [node for node in details if node["op_name"] == "DELEGATE"]
    makers = {int(tensor): node["index"] for node in nodes for tensor in node["outputs"]}
    inputs = {node["index"]: [int(tensor) for tensor in node["inputs"]] for node in nodes}
    owner = {}
    for number, kernel in enumerate(kernels):
        given, wanted = set(map(int, kernel["inputs"])), list(map(int, kernel["outputs"]))
        while wanted:
            node = makers.get(tensor := wanted.pop())
            if tensor not in given and node is not None and node not in owner:
                owner[node] = number
                wanted += inputs[node]
    order = [owner.get(node["index"]) for node in nodes]
    parts = sum(here != before for here, before in zip(order, [object(), *order], strict=False))
    return len(nodes), len(kernels), len(owner), parts
