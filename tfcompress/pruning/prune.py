"""``Prune``: gradual pruning by any criterion, granularity and schedule."""

import warnings
import weakref
from dataclasses import dataclass

import numpy as np

from tfcompress.layout import VECTOR_NAMES, kernels
from tfcompress.method import Config, Method, serializable
from tfcompress.model import leaves
from tfcompress.pruning.channels import channel_labels
from tfcompress.pruning.criteria import CRITERIA
from tfcompress.pruning.gradients import mean_slopes
from tfcompress.pruning.granularity import ELEMENTS, FILTERS, granularity, own_labels, regrown
from tfcompress.wrapper import read

FROM_WEIGHTS = ("random", "magnitude", "l1_norm", "l2_norm", "geometric_median")    # these look at nothing else
_known_labels = weakref.WeakKeyDictionary()


@serializable
@dataclass(frozen=True)
class Prune(Method):
    """Forward ``w * mask``; gradient ``mask``. Each update keeps the best-scoring weights (Zhu & Gupta 2017).

    A tensor has exactly ``round(schedule(step) * size)`` zeros after an update. Masked weights keep their latent value,
    so they can come back at a later update; once the schedule has ended and its target is reached the mask is frozen.

    Args:
        schedule: step -> sparsity in [0, 1), e.g. ``Polynomial(0.9, begin=0, end=2000)``.
        criterion: a name in ``criteria.CRITERIA``, e.g. ``"magnitude"``; the smallest scores go first.
        granularity: ``"unstructured"`` (weights, the same share of each tensor) or ``"global"`` (ranked over all);
            ``"4x4"`` (blocks of rows x output channels); ``"2:4"`` (at most 2 of 4 consecutive weights stay; the
            schedule's target is then 0.5, and says how many runs have the pattern); ``"filter"`` (whole output
            channels, the same share of each layer), ``"group"`` (channels that can only be removed together, ranked
            over all layers) or ``"global filter"`` (as "group", each layer for itself, for nets without sums: what is
            added up in a residual block seldom goes as a whole, and keeps its norm). Filters take their biases, and the
            gamma and beta behind them, along; those that ``shrink`` could not remove stay. See ``granularity.py``.
        soft: with whole filters and a schedule that ends: until its end the lowest filters are set to zero at each
            update and go on training, so they can come back; at its end they are masked, gamma and beta too. Soft
            filter pruning, He et al. 2018 (arXiv:1808.06866): ``Constant(0.3, end=steps)``, an update an epoch. Behind
            a batch norm and a ReLU a filter of zeros has a gradient only where its beta is above 0: train it first.
        regrow: with single weights and a schedule that ends: at each update before its end, of the weights that stay
            this share goes too, and as many masked ones come back, from 0: those with the largest mean ``|gradient|``.
            RigL, Evci et al. 2020 (arXiv:1911.11134), which takes 0.3; needs ``CompressionCallback(data=(x, y))``.

    >>> import numpy as np
    >>> from tfcompress import OneShot, Prune
    >>> w = np.array([[0.1, -3.0], [2.0, -0.2]], "float32")
    >>> Prune(OneShot(0.5)).update({"w": w}, {"w": {}}, step=0)["w"]["mask"].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> Prune(OneShot(0.5), granularity="filter").update({"w": w}, {"w": {}}, step=0)["w"]["mask"].tolist()
    [0.0, 1.0]
    """

    schedule: Config
    criterion: str = "magnitude"
    granularity: str = "unstructured"
    soft: bool = False
    regrow: float = 0.0

    def __post_init__(self):
        check_criterion(self.criterion)
        check_schedule(self.schedule)
        options = getattr(granularity(self.granularity), "keywords", {})
        if "m" in options and abs(self.schedule.target - (1 - options["n"] / options["m"])) > 1e-6:
            raise ValueError(f"The pattern {self.granularity!r} makes a sparsity of {1 - options['n'] / options['m']}: "
                             f"let the schedule end there. Received: {self.schedule!r}.")
        if self.soft and not self.structured:
            raise ValueError(f"soft=True takes whole filters: granularity is one of {sorted(FILTERS)}. "
                             f"Received: granularity={self.granularity!r}.")
        if not 0 <= self.regrow < 1 or (self.regrow and self.granularity not in ELEMENTS):
            raise ValueError("`regrow` is a share of the weights that stay, in [0, 1), and needs a granularity of "
                             f"single weights, {sorted(ELEMENTS)}. Received: regrow={self.regrow!r}, "
                             f"granularity={self.granularity!r}.")
        if (self.soft or self.regrow) and self.schedule.end is None:
            raise ValueError("With `soft` or `regrow` the schedule needs an end, after which the mask stays: "
                             f"Constant(0.3, end=1000). Received: {self.schedule!r}.")

    vectors_last = True

    @property
    def structured(self):
        return self.granularity in FILTERS

    @property
    def needs_model(self):
        return self.structured or self.regrow > 0 or self.criterion not in FROM_WEIGHTS

    @property
    def milestones(self):
        return tuple(step for step in (self.schedule.begin, self.schedule.end) if step)

    def init(self, w):
        return {"mask": np.ones(w.shape[-1:] if self.structured else w.shape, "float32"), "frozen": np.float32(0)}

    def apply(self, w, state):
        return w * state["mask"]

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        share = self.schedule(step)
        if self.regrow:                                  # momentum moves what is masked: it counts as 0
            weights = {path: w * states[path]["mask"] for path, w in weights.items()}
        scores = scores_of(self.criterion, weights, model, data)
        if not self.structured:
            return self._weights_go(weights, states, scores, step, model, data)
        masks = filter_masks(self.granularity, weights, scores, share, model)
        if self.soft and step < self.schedule.end:
            return {path: states[path] | ({"weight": weights[path] * mask} if path in scores else {})
                    for path, mask in masks.items()}
        return {path: {"mask": mask, "frozen": self._at_the_end(step)} for path, mask in masks.items()}

    def _weights_go(self, weights, states, scores, step, model, data):
        for path, w in weights.items():
            if scores[path].shape != w.shape:
                raise ValueError(f"Criterion {self.criterion!r} gives one score a filter, granularity "
                                 f"{self.granularity!r} takes single weights. Received: scores {scores[path].shape} "
                                 f"for '{path}' {w.shape}. Choose a granularity of {sorted(FILTERS)}.")
        share = self.schedule(step)
        masks = granularity(self.granularity)(scores, share)
        if self.regrow and step < self.schedule.end:
            slopes, _ = mean_slopes(list(weights), model, data)
            masks = {path: regrown(mask, scores[path], slopes[path], self.regrow) for path, mask in masks.items()}
        new = {path: {"mask": mask, "frozen": self._at_the_end(step)} for path, mask in masks.items()}
        if self.regrow:
            for path, w in weights.items():
                new[path]["weight"] = w * masks[path]
        return new

    def _at_the_end(self, step):
        """1 from the first update at or after the schedule's end: the mask stays, whatever the step says later."""
        return np.float32(self.schedule.end is not None and step >= self.schedule.end)

    def idle(self, states, step):
        return step < self.schedule.begin or all(state.get("frozen", 0) for state in states.values())


def check_criterion(name):
    if name not in CRITERIA:
        raise ValueError(f"Unknown criterion {name!r}. Known: {sorted(CRITERIA)}.")


def check_schedule(schedule):
    target = getattr(schedule, "target", None)
    if target is None or not 0 <= target < 1:
        raise ValueError("`schedule` gives a sparsity, a fraction in [0, 1): 0.9 prunes 90 %. "
                         f"Received: {schedule!r}.")


def is_vector(path):
    """Whether a tensor path is that of a bias, gamma or beta: they follow the filters, and have no score."""
    return "/" in path and path.split("/")[-1] in VECTOR_NAMES


def scores_of(criterion, weights, model, data):
    """The criterion's scores of the kernels among ``weights``."""
    found = {path: w for path, w in weights.items() if not is_vector(path)}
    return CRITERIA[criterion](found, model, data) if found else {}


def filter_masks(name, weights, scores, sparsity, model=None):
    """``{path: (channels,) mask}`` of kernels and vectors, by the granularity ``name`` of whole filters.

    Without a model every layer stands alone, and only biases go with the filters.

    Raises:
        ValueError: the granularity "group" without a model.
    """
    if model is None and name == "group":
        raise ValueError("Granularity 'group' follows the network. Received: model=None. Pass the model to update(), "
                         "as CompressionCallback does, or take granularity='filter'.")
    labels = own_labels(weights) if model is None else known_labels(model)
    coupled = labels
    if name == "global filter":
        coupled = {path: np.where(labels.get(path, -1) < 0, -1, own) for path, own in own_labels(scores).items()}
    masks = granularity(name)(scores, sparsity, coupled) if scores else {}
    _warn_of_halves(scores, labels, model, name)
    living = alive(masks, labels, model)
    for path, w in weights.items():
        if path not in masks:
            own = labels.get(path, np.full(w.shape[-1], -1))
            masks[path] = np.where((own < 0) | np.isin(own, living), 1, 0).astype("float32")
    return {path: masks[path] for path in weights}


def _warn_of_halves(scores, labels, model, name):
    """Filters can only be removed where all that they are coupled with goes: say where the rules leave some out."""
    if model is None or not scores or name == "global filter":
        return
    own = np.unique(np.concatenate([labels[path] for path in scores if path in labels] or [np.zeros(0, int)]))
    outside = [path for path, found in labels.items() if path not in scores and not is_vector(path)
               and np.isin(found[found >= 0], own).any()]
    if outside:
        warnings.warn(f"Filters of {list(scores)[:3]} are coupled with {outside[:3]}, which have another method or "
                      "none: zeroed, but never removed. Give them all one rule with an equal method.", stacklevel=2)


def known_labels(model):
    """``channel_labels(model)``, worked out once a model."""
    if model not in _known_labels:
        _known_labels[model] = channel_labels(model)
    return _known_labels[model]


def alive(masks, labels, model=None):
    """The labels some kernel still has: by its mask, or, of other kernels in ``model``, by weights that aren't zero."""
    stay = {path: mask > 0 for path, mask in masks.items()}
    for owner, layer in leaves(model) if model is not None else ():
        for key, (variable, view) in kernels(layer).items():
            path = f"{owner}/{key}"
            if path not in stay and (labels.get(path, np.full(1, -1)) >= 0).any():
                stay[path] = (view.to(read(variable), np) != 0).reshape(-1, view.canonical[-1]).any(0)
    found = [labels[path][kept] for path, kept in stay.items() if path in labels]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, int)
