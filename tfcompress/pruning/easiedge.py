"""``FilterADMM``: whole filters pruned by ADMM with a global ranking, as in EasiEdge."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.method import Config, Method, serializable
from tfcompress.pruning.prune import check_criterion, check_schedule, filter_masks, scores_of


@serializable
@dataclass(frozen=True)
class FilterADMM(Method):
    """Forward ``w``, with ``rho / 2 * ||w - z + u||^2`` added to the loss; at the end ``w * mask``.

    The penalty draws each tensor to ``z``, a network in which only the best filters are not zero. In each of ``rounds``
    rounds, evenly spread over the schedule: ``z = w + u`` where the criterion's global top filters are, 0 elsewhere
    (coupled channels go together, each layer keeps 5 % and one: ``granularity.global_filters``); then ``u += w - z``,
    from the second round on; then ``rho *= growth`` and ``u /= growth``, because ``u`` counts in units of ``1 / rho``
    (Boyd et al. 2011, section 3.4.1). At the end of the schedule the mask is chosen, once: fine-tune behind it. Biases,
    gammas and betas go with their filters, in ``z`` and in the mask: a kernel's size means nothing in front of a batch
    normalization.

    After EasiEdge (Fang et al., IEEE IoT Journal 8(3), 2021), in our reading of the abstract.

    Args:
        schedule: step -> share of the filters to remove, in [0, 1), with an end: ``Constant(0.5, begin=0, end=2000)``.
        criterion: a name in ``criteria.CRITERIA``; the paper's is "information_gain", which needs
            ``CompressionCallback(data=(x, y))``.
        rounds: of z and u, 10..30 in use; the last one's place is before the end.
        rho: penalty of the first round.
        growth: of rho a round, >= 1.

    Raises:
        ValueError: a schedule without a length, rounds < 1, rho <= 0, growth < 1, an unknown criterion.

    >>> import numpy as np
    >>> from tfcompress import Constant
    >>> method = FilterADMM(Constant(0.5, begin=0, end=4), criterion="l2_norm", rounds=2, rho=0.1)
    >>> w = np.array([[1.0, 3.0], [2.0, 4.0]], "float32")
    >>> state = method.update({"w": w}, {"w": method.init(w)}, step=0)["w"]
    >>> state["z"].tolist()
    [[0.0, 3.0], [0.0, 4.0]]
    >>> round(float(method.penalty(w, state)), 4)            # 0.1 / 2 * (1 ** 2 + 2 ** 2)
    0.25
    """

    schedule: Config
    criterion: str = "information_gain"
    rounds: int = 20
    rho: float = 1e-3
    growth: float = 1.5

    structured = True
    needs_model = True

    def __post_init__(self):
        check_criterion(self.criterion)
        check_schedule(self.schedule)
        if self.schedule.end is None or self.schedule.end <= self.schedule.begin:
            raise ValueError("The rounds are spread over the schedule, from its begin to its end, optimizer steps: "
                             f"Constant(0.5, begin=0, end=2000). Received: {self.schedule!r}.")
        if self.rounds < 1 or self.rho <= 0 or self.growth < 1:
            raise ValueError("Expected rounds >= 1, rho > 0 and growth >= 1. Received: "
                             f"rounds={self.rounds!r}, rho={self.rho!r}, growth={self.growth!r}.")

    @property
    def starts(self):
        """The optimizer steps at which rounds begin."""
        begin, end = self.schedule.begin, self.schedule.end
        return tuple(begin + (end - begin) * i // self.rounds for i in range(self.rounds))

    @property
    def milestones(self):
        return tuple(step for step in (*self.starts, self.schedule.end) if step)

    def init(self, w):
        """``rho`` is 0 before the first round; ``round`` counts those begun, and one more at the end."""
        zero = np.zeros(w.shape, "float32")
        return {"z": zero, "u": zero, "rho": np.float32(0), "round": np.float32(0),
                "mask": np.ones(w.shape[-1:], "float32")}

    def apply(self, w, state):
        return w * state["mask"]

    def penalty(self, w, state):
        return 0.5 * state["rho"] * ops.sum(ops.square(w - state["z"] + state["u"]))

    def _due(self, step):
        return sum(start <= step for start in (*self.starts, self.schedule.end))

    def idle(self, states, step):
        return self._due(step) <= min(int(state["round"]) for state in states.values())

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        due = self._due(step)
        scores = scores_of(self.criterion, weights, model, data)
        masks = filter_masks("global filter" if model is None else "group", weights, scores, self.schedule(step), model)
        if step >= self.schedule.end:
            last = {"rho": np.float32(0), "round": np.float32(due)}
            return {path: states[path] | last | {"mask": mask} for path, mask in masks.items()}
        rho, new = np.float32(self.rho * self.growth ** (due - 1)), {}
        for path, w in weights.items():
            u = states[path]["u"]
            z = (w + u) * masks[path]
            u = (u + w - z) * (states[path]["rho"] / rho)                # before the first round rho is 0
            new[path] = states[path] | {"z": z, "u": u, "rho": rho, "round": np.float32(due)}
        return new
