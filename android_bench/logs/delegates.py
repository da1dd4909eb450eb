"""Which part of the chip really ran the graph: read from a log's delegate lines, not from what was asked for."""

import re
from dataclasses import dataclass

from android_bench.logs.log_lines import printable

_LABELS = {"xnnpack": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "hexagon": "Hexagon", "npu": "NPU"}
_REPLACING = re.compile(
    r"^Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate \(([^()\n]{1,200})\) node, "
    r"yielding (\d{1,9}) partitions([^\n]{0,300})",
    re.M,
)
_APPLIED = re.compile(
    r"^(?:Explicitly a|A)pplied (\w{1,60}) delegate(?:, and the model graph will be (completely|partially) executed)?",
    re.M,
)
_NOT_USED = re.compile(r"^Though (\w{1,60}) delegate is explicitly applied, the model graph will not be", re.M)
_XNNPACK = re.compile(r"^Created TensorFlow Lite XNNPACK delegate for CPU", re.M)
_OPENGL = re.compile(r"^(?:(No selector for [^\n]{1,100})\n)?Falling back to OpenGL", re.M)
_ASKED = re.compile(r"--use_(gpu|nnapi|hexagon|npu|coreml|xnnpack)=(?:true|1)|--(external)_delegate_path=.", re.DOTALL)


@dataclass(frozen=True)
class Delegation:
    """What one delegate took of the graph. `None` = the log doesn't say.

    Attributes:
        name: "xnnpack", "gpu", "nnapi", "hexagon", "npu", "external", or the name that the log prints.
        taken: "all", "part" or "none" of the graph.
        nodes: nodes it took, of all subgraphs together.
        of: nodes that there were.
        partitions: pieces the graph was cut into, those that stayed behind included.
    """

    name: str
    taken: str | None
    nodes: int | None = None
    of: int | None = None
    partitions: int | None = None

    @property
    def label(self) -> str:
        """The name as people write it: "GPU"."""
        return _LABELS.get(self.name, self.name)


def read_delegates(body: str) -> tuple[Delegation, ...]:
    """The delegates that a log's messages (one a line) tell of, in the order of their names.

    >>> read_delegates("Explicitly applied GPU delegate, and the model graph will be completely executed by the ...")
    (Delegation(name='gpu', taken='all', nodes=None, of=None, partitions=None),)
    """
    said = {_short(found[1]): _taken_in_words(found[2]) for found in _APPLIED.finditer(body)}
    said |= {_short(found[1]): "none" for found in _NOT_USED.finditer(body)}
    if _XNNPACK.search(body):
        said.setdefault("xnnpack", None)
    counts = {}  # name -> subgraph -> numbers; when a delegate is applied twice its last line is the one that holds
    for found in _REPLACING.finditer(body):
        name = _short(found[3])
        if "external" in said and name not in said and name not in _LABELS:
            name = "external"
        counts.setdefault(name, {})[found[5]] = tuple(found[i] and int(found[i]) for i in (1, 2, 4))
    return tuple(_delegation(name, said.get(name), counts.get(name)) for name in sorted(said | counts))


def what_ran(delegates: tuple[Delegation, ...], *, can_tell: bool) -> str | None:
    """"gpu", "xnnpack", ...; "builtin" where no delegate took anything; None where the log can't tell that."""
    took = [delegate.name for delegate in delegates if delegate.taken != "none"]
    took.sort(key=lambda name: name == "xnnpack")  # beside another delegate XNNPACK only has the rest
    return took[0] if took else ("builtin" if can_tell else None)


def delegate_notes(delegates, ran_on: str | None, echoed: dict[str, str], unconsumed, body: str) -> list[str]:
    """What a reader must know before he calls the numbers those of the delegate that he asked for."""
    notes, known = [], {delegate.name for delegate in delegates}
    instead = f"ran on {ran_on or 'the CPU'}"
    for delegate in delegates:
        if delegate.taken == "part":
            share = f"{delegate.nodes} of {delegate.of} nodes" if delegate.of else "only a part of the graph"
            notes.append(f"{delegate.label} took {share}")
        elif delegate.taken == "none":
            notes.append(f"{delegate.label} took nothing of the graph: {instead}")
    for name, wish in _asked(echoed).items():
        if name not in known:
            notes.append(f"{_LABELS.get(name, name)} delegate was never applied (asked for: {wish}): {instead}")
    for flag in unconsumed:
        if found := _ASKED.match(flag):
            name = found[1] or found[2]
            notes.append(f"this benchmark_model has no {_LABELS.get(name, name)} delegate: {instead}")
    if found := _OPENGL.search(body):
        notes.append("GPU fell back to OpenGL" + (f" ({found[1]})" if found[1] else ""))
    return notes


def _short(name: str) -> str:
    name = name.lower()
    if name.startswith("litert_") or "gpu" in name:  # LITERT_CL, TfLiteGpuDelegateV2
        return "gpu"
    if name == "dispatchdelegate":
        return "npu"
    return next((short for short in _LABELS if short in name), printable(name))


def _taken_in_words(word: str | None) -> str | None:
    return {"completely": "all", "partially": "part"}.get(word)


def _delegation(name, taken, subgraphs) -> Delegation:
    if not subgraphs:
        return Delegation(name, taken)
    nodes, of, partitions = (
        None if None in column else sum(column) for column in zip(*subgraphs.values(), strict=True)
    )  # fmt: skip
    if taken is None:
        whole = nodes == of if of is not None else partitions == len(subgraphs)
        taken = "none" if not nodes else "all" if whole else "part"
    return Delegation(name, taken, nodes, of, partitions)


def _asked(echoed: dict[str, str]) -> dict[str, str]:
    """Delegate -> the wish as the tool echoed it."""
    asked = {}
    for key, value in echoed.items():
        found = re.fullmatch(r"use (gpu|nnapi|hexagon|npu|coreml|xnnpack)", key.lower())
        if found and value in ("1", "true"):
            asked[found[1]] = f"{key}: {value}"
        elif key == "External delegate path" and value:
            asked["external"] = value
    return asked
