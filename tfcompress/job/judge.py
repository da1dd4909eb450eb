"""What a file is worth: the metric on validation data, and what the target counts."""

import dataclasses

from android_bench import side_by_side
from tfcompress import measure
from tfcompress.macs import file_macs
from tfcompress.pack import packing

PAYS = 0.98                                              # of the cost before: less than 2 % is no saving


@dataclasses.dataclass(frozen=True)
class Hop:
    """A ``.tflite`` on the way. ``score``: the metric on validation data; ``cost``: what the target counts."""

    score: float
    bytes: int
    packed_bytes: int
    macs: int
    cost: float


def weigh(path, task, data, target, before=None):
    """The ``Hop`` of a file.

    Args:
        before: path and cost of the file before it. Times are measured side by side with that, so that the cost of
            each file is the control's time, times ratios.
    """
    content = path.read_bytes()
    score = task.score(measure.run(content, data.x_val), data.y_val)
    packed = len(packing(content, fast=True).content)
    if target != "fast":
        cost = packed if target == "small" else len(content)
    elif before is None:
        cost = side_by_side.latencies([path])[0]
    else:
        first, second = side_by_side.latencies([before[0], path])
        cost = before[1] * second / first
    return Hop(score, len(content), packed, file_macs(content), cost)


def lost(task, score, control):
    """What the metric lost against the control's: a share of 1, or of the control's error; below 0 is a gain.

    >>> from tfcompress import tasks
    >>> round(lost(tasks.TASKS["classification"], 0.93, 0.95), 3), lost(tasks.TASKS["regression"], 3.0, 2.0)
    (0.02, 0.5)
    """
    gap = control - score if task.higher_is_better else score - control
    return gap / control if task.relative and control else gap


def better(rows):
    """Of rows of one stage the one to take: of those that are kept the cheapest, of like costs what loses least.

    >>> rows = [{"kept": True, "cost": cost, "loss": loss} for cost, loss in ((100, 0.004), (101, 0.001), (200, 0.0))]
    >>> better(rows)["cost"], better([row | {"kept": False} for row in rows])["cost"]
    (101, 200)
    """
    kept = [row for row in rows if row["kept"]]
    least = min((row["cost"] for row in kept), default=0)
    return min([row for row in kept if PAYS * row["cost"] <= least] or rows, key=lambda row: row["loss"])


def verdict(name, stage, before, after, loss, allowed):
    """Whether a stage's result stays, and why.

    Args:
        name: of the stage; stage: its settings.
        before, after: ``Hop``s, and the losses they have: ``loss`` is ``(before's, after's)``.
        allowed: what may be lost up to here.
    """
    if name == "distil":
        kept = loss[1] < loss[0]
        return kept, f"{'better' if kept else 'no better'} on validation data"
    if loss[1] > allowed:
        return False, f"loses {loss[1]:.4f}, allowed up to here {allowed:.4f}"
    if name == "prune" and stage["by"] == "filters":
        return True, "filters are zero; shrink removes them"
    if name == "shrink" and after.macs < before.macs:
        return True, f"{1 - after.macs / before.macs:.1%} of the multiplications gone"
    kept = after.cost <= PAYS * before.cost
    return kept, f"costs {after.cost / before.cost:.0%} of before" + ("" if kept else ": does not pay")
