"""``Prune``: gradual pruning by any criterion, granularity and schedule."""

from dataclasses import dataclass

import numpy as np

from tfcompress.method import Config, Method, serializable
from tfcompress.pruning.criteria import CRITERIA
from tfcompress.pruning.granularity import GRANULARITIES


@serializable
@dataclass(frozen=True)
class Prune(Method):
    """Forward ``w * mask``; gradient ``mask``. Each update keeps the best-scoring weights (Zhu & Gupta 2017).

    A tensor has exactly ``round(schedule(step) * size)`` zeros after an update. Masked weights keep their latent value,
    so they can come back at a later update; once the schedule has ended and its target is reached the mask is frozen.

    Args:
        schedule: step -> sparsity in [0, 1), e.g. ``Polynomial(0.9, begin=0, end=2000)``.
        criterion: ``"magnitude"``.
        granularity: ``"unstructured"`` (the same share of each tensor) or ``"global"`` (ranked over all of them).

    >>> import numpy as np
    >>> from tfcompress import OneShot, Prune
    >>> w = np.array([[0.1, -3.0], [2.0, -0.2]], "float32")
    >>> Prune(OneShot(0.5)).update({"w": w}, {"w": {}}, step=0)["w"]["mask"].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    schedule: Config
    criterion: str = "magnitude"
    granularity: str = "unstructured"

    def __post_init__(self):
        for field, known in (("criterion", CRITERIA), ("granularity", GRANULARITIES)):
            if getattr(self, field) not in known:
                raise ValueError(f"Unknown {field} {getattr(self, field)!r}. Known: {sorted(known)}.")
        target = getattr(self.schedule, "target", None)
        if target is None or not 0 <= target < 1:
            raise ValueError("`schedule` gives a sparsity, a fraction in [0, 1): 0.9 prunes 90 %. "
                             f"Received: {self.schedule!r}.")

    @property
    def milestones(self):
        return tuple(step for step in (self.schedule.begin, self.schedule.end) if step)

    def init(self, w):
        return {"mask": np.ones(w.shape, "float32")}

    def apply(self, w, state):
        return w * state["mask"]

    def update(self, weights, states, step, model=None, data=None):
        if step < self.schedule.begin or self._finished(states, step):
            return states
        scores = CRITERIA[self.criterion](weights, model, data)
        masks = GRANULARITIES[self.granularity](scores, self.schedule(step))
        return {path: {"mask": mask} for path, mask in masks.items()}

    def _finished(self, states, step):
        end = self.schedule.end
        if end is None or step <= end or not all(states.values()):
            return False
        masks = [state["mask"] for state in states.values()]
        zeros, size = sum(int(np.sum(mask == 0)) for mask in masks), sum(mask.size for mask in masks)
        return abs(zeros - self.schedule.target * size) <= 0.5 * len(masks)
