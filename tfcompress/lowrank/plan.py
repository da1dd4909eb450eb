"""Which kernels to factorise, and how: by a rule for each, or the least damage within budgets."""

import math

import numpy as np

from tfcompress.distillation.losses import head_of, recover_logits, soft_targets
from tfcompress.graph import batches
from tfcompress.layout import kernels
from tfcompress.lowrank.options import factors, joined, ruled
from tfcompress.programme import choose
from tfcompress.pruning.targets import compiled_loss, loss_name
from tfcompress.wrapper import read

BYTES = 4  # of a float32 weight
AMOUNTS = {"flops": lambda one: one.macs, "bytes": lambda one: BYTES * one.parameters,
           "nonzeros": lambda one: one.nonzeros}  # of an item or an option


def by_rule(items, kinds, rule, share, covariances, round_to=1):
    """``{item: Option}`` of the items for which the rule finds factors that save."""
    chosen = {item: ruled(item, kinds, rule, share, covariances.get(item), round_to) for item in items}
    return {item: option for item, option in chosen.items() if option}


def by_budget(items, tables, sensitivities, spare, limits):
    """``{item: Option}``: the least sum of damages within ``limits``; None where nothing is.

    Without a sensitivity the damage of an option is ``-log(1 - error)``: the product of the energies that are kept is
    what Zhang X et al. (IEEE TPAMI 2016, arXiv:1505.06798, eq. 13) found accuracy to follow.

    Args:
        items: of the graph; tables: ``{item: [Option]}``.
        sensitivities: ``{item: damage by share lost}``, or empty.
        spare: what the model has beside the items, and limits: ``{"flops": ..., "bytes": ..., "nonzeros": ...}``.
    """
    table = []
    for item in items:
        row = [(0.0, *(amount(item) for amount in AMOUNTS.values()), None)]
        row += [(_damage(item, one, sensitivities), *(amount(one) for amount in AMOUNTS.values()), one)
                for one in tables[item]]
        table.append(_undominated(row))
    width = max(map(len, table))
    damages, *amounts = (np.array([[row[c][i] if c < len(row) else filled for c in range(width)] for row in table])
                         for i, filled in enumerate((np.inf, *(0 for _ in AMOUNTS))))
    costs = np.array([amounts[list(AMOUNTS).index(name)] for name in limits], "float64")
    chosen = choose(damages, costs, [limit - spare[name] for name, limit in limits.items()])
    if chosen is None:
        return None
    picked = {item: row[int(c)][-1] for item, row, c in zip(items, table, chosen, strict=True)}
    return {item: option for item, option in picked.items() if option}


def _damage(item, option, sensitivities):
    if item in sensitivities:
        return max(sensitivities[item] * option.error, 1e-12)
    return -math.log(max(1.0 - option.error, 1e-6)) + 1e-9


def _undominated(row):
    """Options that nothing else beats in damage and all amounts together."""
    return [one for i, one in enumerate(row)
            if not any(all(b <= a for a, b in zip(one[:-1], other[:-1], strict=True))
                       and (other[:-1] != one[:-1] or j < i) for j, other in enumerate(row) if j != i)]


def least(items, tables, spare):
    """``{"flops": ..., "bytes": ..., "nonzeros": ...}`` of the model where each kernel takes its cheapest option."""
    return {name: spare[name] + sum(min(map(amount, [item, *tables[item]])) for item in items)
            for name, amount in AMOUNTS.items()}


# ---- sensitivity ------------------------------------------------------------------------------------------------
def probe(tables, item, share=0.5):
    """The option of an item that its sensitivity is measured with: the one nearest to half of its MACs or weights."""
    def kept(one):
        return one.nonzeros / item.nonzeros if one.kind == "sparse" else one.macs / item.macs

    return min(tables[item], key=lambda one: abs(kept(one) - share), default=None)


def sensitivity(graph, item, option, covariance, x, before, head):
    """Change of the model's outputs by the share that is lost, where this item alone is factorised.

    Mean KL divergence of the classes where the head tells them (softmax, sigmoid, or logits compiled with a
    cross-entropy), else relative squared error. ``before`` are the ``outputs`` of the whole model for ``x``.
    """
    variable, _ = kernels(item.layer)[item.key]
    whole = read(variable)
    kernel = joined(option.kind, factors(item, option.kind, option.ranks, covariance), item.kernel.shape)
    variable.assign(kernel.astype("float32"))
    after = outputs(graph, x)
    variable.assign(whole)
    return change(before, after, head) / max(option.error, 1e-12)


def change(before, after, head):
    """How far two lists of outputs are apart; ``head`` as ``losses.head_of`` tells it."""
    if head and len(before) == 1:
        teacher, student = recover_logits(before[0], head), recover_logits(after[0], head)
        return float(np.mean(soft_targets(teacher, student, 1.0)))
    gap = sum(float(((a - b) ** 2).sum()) for a, b in zip(before, after, strict=True))
    return gap / max(sum(float((b**2).sum()) for b in before), 1e-30)


def head_kind(model):
    """What the one output of the model is; None where it is no classes, or nothing tells so."""
    head = head_of(model) if len(model.outputs) == 1 and model.outputs[0].shape[-1] != 1 else None
    told = loss_name(compiled_loss(model).get("loss"))
    return None if head == "logits" and "crossentropy" not in told else head


def outputs(graph, x, batch=64):
    """What the graph gives for samples ``x``, so many at a time: a list of arrays."""
    parts = [[np.asarray(t) for t in graph.run(part)] for part in batches(x, batch)]
    return [np.concatenate(group) for group in zip(*parts, strict=True)]
