"""Which channels go first: scores and costs by label, and as many of the lowest as it takes."""

import numpy as np

from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.pruning.channels import Channels, labels_of
from tfcompress.pruning.criteria import CRITERIA
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.shrink import remove
from tfcompress.wrapper import read

# Their scores have no common unit: a layer's are divided by their mean, and coupled layers are averaged. All others
# tell a change of the loss or of the outputs, or a share of them: those of coupled layers are added up.
RELATIVE = ("random", "magnitude", "l1_norm", "l2_norm", "geometric_median", "bn_scale", "slope", "slope_both")


def label_scores(model, channels, criterion, data=None):
    """One score for each label, float64 ``(channels.count,)``; infinite where a channel must stay."""
    weights = {f"{path}/{key}": view.to(read(variable), np) for path, layer in leaves(model)
               for key, (variable, view) in kernels(layer).items()}
    labels = labels_of(channels)
    weights = {path: w for path, w in weights.items() if (labels[path] > 0).any()}
    total, count = np.zeros(channels.count), np.zeros(channels.count)
    for path, scores in CRITERIA[criterion](weights, model, data).items():
        own = np.asarray(scores, "float64").reshape(-1, scores.shape[-1]).sum(0)
        if criterion in RELATIVE:
            own = own / max(float(own.mean()), 1e-30)
        there = labels[path] > 0
        np.add.at(total, labels[path][there], own[there])
        np.add.at(count, labels[path][there], 1)
    if criterion in RELATIVE:
        total /= np.maximum(count, 1)
    return np.where(count > 0, total, np.inf)[channels.roots(np.arange(channels.count))]


def label_costs(channels, metric="flops"):
    """What one channel of each label costs in the model as it is: MACs of a run, or bytes of float32 weights.

    ``(channels.count,)``, float64. Removing several costs less than their sum: a weight between two goes once.
    """
    cost, roots = np.zeros(channels.count), channels.roots(np.arange(channels.count))
    for record in channels.records.values():
        terms = record.macs if metric == "flops" else [(i, 4) for i in range(len(record.layer.weights))]
        for index, times in terms:
            size = int(np.prod(record.layer.weights[index].shape))
            for labels in record.slices.get(index, {}).values():
                np.add.at(cost, roots[labels], times * size / len(labels))
        for labels, times in record.products if metric == "flops" else ():
            np.add.at(cost, roots[labels], times)
    return cost[roots]


def label_times(model, channels, scores, time_of):
    """What one channel of each label takes, measured: ``(channels.count,)`` float64, in the unit of ``time_of``.

    Of each set of coupled layers the lower half of the channels is removed, and the small model timed. What it saves is
    divided by their number; a saving below a thousandth of the whole time counts as that much.

    Args:
        model, channels: the model, and its ``Channels``.
        scores: one a label; the lowest are removed.
        time_of: Keras model -> measured time.
    """
    roots, times = channels.roots(np.arange(channels.count)), np.ones(channels.count)
    whole = time_of(model)
    for own in pools(channels):
        gone = own[np.argsort(scores[own], kind="stable")][: len(own) // 2]
        if len(gone):
            saved = whole - time_of(remove(Channels(model), gone))
            times[own] = max(saved, whole / 1000) / len(gone)
    return times[roots]


def pools(channels):
    """The free labels of the layers that make channels, units or heads, those of coupled layers together."""
    made = [labels for record in channels.records.values()
            for labels in (*record.made, *([] if record.inside is None else [record.inside]))]
    own = [roots[roots != FIXED] for roots in (np.unique(channels.roots(labels)) for labels in made)]
    pool, free = np.arange(channels.count), np.unique(np.concatenate([np.zeros(0, int), *own]))
    for labels in own:
        pool[np.isin(pool, pool[labels])] = pool[labels].min(initial=channels.count)
    return [free[pool[free] == name] for name in np.unique(pool[free])]


def floors(channels):
    """``{(layer name, side): how many channels must stay}``: a tenth, and one, of what each layer reads and makes."""
    roots = channels.roots(np.arange(channels.count))
    return {side: _tenth(np.unique(roots[labels])) for side, labels in _sides(channels)}


def _tenth(labels):
    return max(1, int(np.ceil(0.1 * len(labels))))


def _sides(channels):
    """``((layer name, what it is there), labels)`` of all that layers read and make."""
    for record in channels.records.values():
        for at, labels in (*enumerate(record.given), *record.counts.items()):
            yield (record.layer.name, at), labels


def lowest(channels, scores, enough, least):
    """``keep``: without as few of the lowest-scored channels as make ``enough(keep)`` true.

    Of every layer as many stay as ``least`` says, the ``floors`` of this model or of the larger one that it was. Where
    that is not enough, all that may go goes.
    """
    roots = channels.roots(np.arange(channels.count))
    may = np.isfinite(scores) & (roots == np.arange(channels.count)) & (roots != FIXED)
    for side, labels in _sides(channels):
        own = np.unique(roots[labels])
        best = own[np.argsort(-np.where(own == FIXED, np.inf, scores[own]), kind="stable")]
        may[best[:least.get(side, _tenth(own))]] = False
    order = np.flatnonzero(may)
    order = order[np.argsort(scores[order], kind="stable")]

    def without(number):
        keep = np.ones(channels.count, bool)
        keep[order[:number]] = False
        return keep[roots]

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(without(middle)) else (middle + 1, high)
    return without(low)
