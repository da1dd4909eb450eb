"""``factorize``: kernels as products of smaller ones, ranks chosen by a rule or to meet a budget."""

import sys
from dataclasses import dataclass

import keras
import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from android_bench.store import Store
from tfcompress.graph import Graph
from tfcompress.kept import load, save, work_in
from tfcompress.lowrank.branches import trained, zero_rules
from tfcompress.lowrank.items import found
from tfcompress.lowrank.moments import checked, moments
from tfcompress.lowrank.options import KINDS, Option, options, settled
from tfcompress.lowrank.plan import AMOUNTS, BYTES, by_budget, by_rule, head_kind, least, outputs, probe, sensitivity
from tfcompress.lowrank.surgery import replace_kernels
from tfcompress.model import check_plain
from tfcompress.quantization.fold import fold_norms
from tfcompress.tuning import training

RULES = ("budget", "energy", "vbmf", "ebic")
AUTO = ("svd", "tucker", "separable")
_SAMPLES = 256  # that moments and sensitivities are measured on


@dataclass(frozen=True)
class FactorizedLayer:
    """One kernel of the model.

    Attributes:
        name: path of the layer, and of the kernel in it where it has several.
        kind: "svd", "tucker", "separable", "cp" or "sparse"; None: it stays whole. ranks: of the factors; of "sparse"
            the rank and the weights of the sparse branch that are not 0.
        macs, parameters: of the kernel or its factors; macs_before, parameters_before: of the kernel.
        error: share of the kernel's energy that is lost, or with data of what it computes: "lost %" where printed.
        sensitivity: how much the model's outputs change, per share lost here alone: mean KL divergence of the classes,
            or relative squared error; None without data.
        nonzeros: of the parameters, those that are not 0.
    """

    name: str
    kind: str | None
    ranks: tuple
    macs: int
    parameters: int
    macs_before: int
    parameters_before: int
    error: float
    sensitivity: float | None
    nonzeros: int


@dataclass(frozen=True)
class Factorization:
    """What ``factorize`` gives back; ``print`` shows it.

    Attributes:
        model: a plain Keras model.
        layers: a ``FactorizedLayer`` for each kernel that could be factorised.
        skipped: ``[(layer path, reason)]`` of those that could not.
        macs, parameters, macs_before, parameters_before: of all kernels of the model, as its file has them.
        agreement: share of the samples (256 at most) to which it gives the class that the model gave, trained or not;
            None without data, or without classes.
        nonzeros: of all kernels of the model, weights that are not 0.
        rules: how zeros of "sparse" stay in more training: ``compress(found.model, found.rules)``, ``fit`` with a
            ``CompressionCallback()``, ``strip``.
    """

    model: keras.Model
    layers: tuple
    skipped: tuple
    macs: int
    parameters: int
    macs_before: int
    parameters_before: int
    agreement: float | None = None

    @property
    def nonzeros(self):
        return self.parameters - sum(layer.parameters - layer.nonzeros for layer in self.layers)

    @property
    def rules(self):
        return zero_rules(self.model)

    def __str__(self):
        width = max((len(layer.name) for layer in self.layers), default=5)
        lines = [f"{'layer':{width}}  {'factors':12}{'ranks':>10}{'MACs':>14}{'weights':>12}{'lost %':>8}"
                 f"{'sensitivity':>13}"]
        for layer in self.layers:
            sensitivity = "" if layer.sensitivity is None else f"{layer.sensitivity:.3g}"
            ranks = ", ".join(map(str, layer.ranks))
            lines.append(f"{layer.name:{width}}  {layer.kind or 'whole':12}{ranks:>10}{layer.macs:>14,}"
                         f"{layer.parameters:>12,}{100 * layer.error:>8.2f}{sensitivity:>13}")
        lines += [f"{layer.name}: theoretical: the same kernel is in the file, {layer.nonzeros:,} of its "
                  f"{layer.parameters:,} weights not 0: smaller only packed" for layer in self.layers
                  if layer.kind == "sparse"]
        lines += [f"not factorised: {path}: {reason}" for path, reason in self.skipped]
        lines.append(f"multiply-accumulates {_change(self.macs_before, self.macs)}, weights "
                     f"{_change(self.parameters_before, self.parameters)}")
        if not any(layer.kind for layer in self.layers):
            lines.append("no kernel has factors that save by this rule: give data, another rule, or a target")
        elif self.agreement is None:
            lines.append("what its outputs are worth is not measured here: compare the .tflite files on test data")
        else:
            lines.append(f"gives the class that the model gave for {100 * self.agreement:.1f} % of the samples")
        return "\n".join(lines)


def _change(before, after):
    more = after > before
    ratio = after / max(before, 1) if more else before / max(after, 1)
    return f"{before:,} -> {after:,} ({ratio:.2f} x {'more' if more else 'fewer'})"


def factorize(model, target=None, rank="budget", data=None, *, kinds="auto", fit=0, teacher=None, round_to=1,
              folder=None):
    """A copy of ``model`` whose kernels are products of smaller ones where that saves MACs and bytes.

    Batch normalizations are folded first. Then each Dense, Conv1D, Conv2D, LSTM or GRU kernel (also inside
    Bidirectional; becomes an RNN of ``LowRankLSTMCell`` or ``LowRankGRUCell``) may become, with ranks r:

    ===========  =====================================================================  ============================
    kind         layers, the last with name, bias and activation                        weights
    ===========  =====================================================================  ============================
    "svd"        the kernel with r outputs, then a matrix (1 x 1 convolution)           r (taps in + out)
    "tucker"     1 x 1 to r, the kernel from r to s, 1 x 1                              r in + taps r s + s out
    "separable"  a column of the kernel's height to r, a row of its width                r (kh in + kw out)
    "cp"         1 x 1 to r, a column and a row for each channel, 1 x 1                  r (in + kh + kw + out)
    "sparse"     "svd" plus a layer of the kernel's own shape, mostly zeros             as "svd", and nonzeros
    ===========  =====================================================================  ============================

    Regularizers go along, a constraint on a kernel does not.
    "sparse" is theoretical: TFLite stores and multiplies the zeros, so that MACs and file grow and only the packed file
    (``pack``, gzip) gets smaller. ``fit`` keeps the zeros; to train on see ``Factorization.rules``.

    Args:
        model: a built Functional or Sequential model with known input sizes; not changed.
        target: with rank="budget" the share of multiply-accumulates to keep where it is below 1, else their number,
            or a dict: ``{"flops": 0.4, "bytes": 0.3}`` (bytes of float32 kernels), ``{"nonzeros": 0.3}`` (weights
            that are not 0: all that "sparse" saves); with rank="energy" the share of each kernel's energy; else None.
        rank: "budget": ranks and kinds by an integer programme, least damage within the target. "energy", "vbmf"
            (variational Bayes), "ebic" (extended BIC): a rank for each kernel by itself, the kind of fewest MACs. EBIC
            with "sparse" is slow: ranks to 16, 8 above 2**17 weights, 4 above 2**18; a minute for 512 x 512.
        data: None, x, or ``(x, y)``. With it "svd" keeps what kernels do to data, not kernels, biases take up the mean
            change, and the budget goes by how much the outputs change when a layer alone is factorised (some seconds).
        kinds: "auto": all but "sparse", and "cp", which takes seconds a kernel and often needs long training; or names.
        fit: ``fit(model, round)``, or a number of epochs on ``data`` with Adam 1e-3 and the model's own loss.
        teacher: with a number of epochs: a Keras model to learn from, or True for ``model`` itself.
        round_to: ranks are multiples of it, where not below it (of rules rounded up): 8 suits most float kernels.
        folder: where the work is kept: the same call goes on there after a crash.

    Returns:
        A ``Factorization``; ``.model`` is a plain float32 Keras model, ``print(...)`` shows every kernel ("whole":
        as it was) and, with data, for how many samples the class is still the same.

    Raises:
        ValueError: an unknown option, a target that is no saving or can't be met, a model that can't be followed.
        RuntimeError: the small model does not give what the factors stand for: a bug, please report it.

    >>> import keras
    >>> wide = [keras.Input((32,)), keras.layers.Dense(64, "relu", name="wide"), keras.layers.Dense(2, name="out")]
    >>> small = factorize(keras.Sequential(wide), 0.5)
    >>> [layer.name for layer in small.model.layers][1:], small.macs <= small.macs_before / 2
    (['wide_factor1', 'wide', 'out'], True)
    """
    kinds = _check(model, target, rank, kinds, round_to)
    data = checked(model, data)
    tune, x = training(fit, model, data, teacher), data[0] if data else None
    if folder is None:
        return _run(model, target, rank, x, kinds, tune, round_to, None)
    with work_in(folder, model, data, fit, teacher, target=target, rank=rank, kinds=list(kinds),
                 round_to=round_to) as held:
        return _run(model, target, rank, x, kinds, tune, round_to, held)


def _check(model, target, rank, kinds, round_to):
    """The kinds, as a tuple; ValueError for what can't be."""
    check_plain(model)
    if rank not in RULES:
        raise ValueError(f"Unknown rank {rank!r}. Known: {list(RULES)}.")
    names = AUTO if kinds == "auto" else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not names or set(names) - set(KINDS):
        raise ValueError(f"`kinds` is 'auto' or some of {list(KINDS)}. Received: {kinds!r}.")
    if rank != "budget" and "cp" in names:
        raise ValueError("The rank of 'cp' is no number of singular values: it needs rank='budget'. "
                         f"Received: rank={rank!r}.")
    if rank in ("energy", "vbmf") and "sparse" in names:
        raise ValueError("'sparse' needs a number of nonzeros beside the rank: rank='ebic', or rank='budget' with "
                         f'target={{"nonzeros": 0.3}}. Received: rank={rank!r}.')
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"`round_to` is an int >= 1. Received: {round_to!r}.")
    if rank in ("vbmf", "ebic"):
        if target is not None:
            raise ValueError(f"rank={rank!r} finds the ranks by itself: leave the target out. Received: {target!r}.")
    elif rank == "energy":
        if not (isinstance(target, (int, float)) and 0 < target < 1):
            raise ValueError("With rank='energy' the target is a share of energy between 0 and 1. "
                             f"Received: {target!r}.")
    else:
        targets = _targets(target)
        if not targets or set(targets) - set(AMOUNTS) or not all(
                isinstance(n, (int, float, np.number)) and n > 0 and n != 1 for n in targets.values()):
            raise ValueError("The target is a share of the multiply-accumulates, above 0 and below 1, their number, or "
                             f'a dict like {{"flops": 0.4, "bytes": 0.3}}. Received: {target!r}.')
        if "sparse" in names and "nonzeros" not in targets:
            raise ValueError("'sparse' saves neither multiply-accumulates nor bytes of the file, only weights that are "
                             f'not 0: its target is a dict like {{"nonzeros": 0.3}}. Received: {target!r}.')
    return names


def _targets(target):
    return dict(target) if isinstance(target, dict) else {"flops": target}


@threadpool_limits.wrap(limits=1, user_api="blas")   # beside other work, two threads wait for each other: 3 x slower
def _run(model, target, rank, x, kinds, fit, round_to, folder):
    graph = Graph(model)
    fold_norms(graph)
    items, skipped, macs, parameters = found(graph)
    sample = None if x is None else keras.tree.map_structure(lambda a: np.asarray(a)[:_SAMPLES], x)
    known = {} if x is None else moments(graph, items, sample)
    before = None if x is None else outputs(graph, sample)
    second = {item: _moment(item, one) for item, one in known.items()}
    tables = {item: options(item, kinds, second.get(item), round_to) for item in items} if rank == "budget" else {}
    measured = {}
    if x is not None and tables:
        measured = _sensitivities(graph, model, items, tables, second, sample, before, folder)
    if rank == "budget":
        chosen = _budgeted(items, tables, measured, _targets(target), (macs, parameters), skipped)
    else:
        chosen = by_rule(items, kinds, rank, target, second, round_to)
    chosen = {item: settled(item, one, second.get(item)) for item, one in chosen.items()}
    layers = tuple(_row(item, chosen.get(item), measured.get(item)) for item in items)
    path = folder / "factorized.keras" if folder else None
    if path and path.exists():
        small = load(path, model)
    else:
        small = replace_kernels(graph, chosen, known)
        small = trained(small, fit)
        if path:
            save(small, path)
    return Factorization(small, layers, tuple(skipped), macs - sum(row.macs_before - row.macs for row in layers),
                         parameters - sum(row.parameters_before - row.parameters for row in layers), macs, parameters,
                         _agreement(before, small, sample))


def _agreement(before, small, sample):
    """Share of equal classes; None without data, or where the outputs are no classes."""
    if before is None or len(before) > 1 or before[0].ndim != 2 or before[0].shape[1] < 2:
        return None
    return float(np.mean(small.predict(sample, verbose=0).argmax(-1) == before[0].argmax(-1)))


def _moment(item, one):
    """Centred where a bias takes up the mean."""
    return one.covariance if item.biased else one.second


def _sensitivities(graph, model, items, tables, second, x, before, folder):
    """``{item: change of the outputs by share lost}``, each written down when it is known."""
    store = Store(folder / "sensitivity.jsonl", key=("name",)) if folder else None
    measured = {row["name"]: row["sensitivity"] for row in store.read()} if store else {}
    missing = [item for item in items if tables[item] and item.name not in measured]
    head = head_kind(model)
    for item in track(missing, "sensitivity by layer", transient=True, disable=not sys.stdout.isatty()):
        measured[item.name] = sensitivity(graph, item, probe(tables, item), second.get(item), x, before, head)
        if store:
            store.append({"name": item.name, "sensitivity": measured[item.name]})
    return {item: measured[item.name] for item in items if item.name in measured}


def _budgeted(items, tables, measured, targets, whole, skipped):
    if not items:
        raise ValueError(f"No kernel of the model can be factorised: {skipped or 'there is none'}.")
    zeros = sum(item.parameters - item.nonzeros for item in items)
    own = {"flops": whole[0], "bytes": BYTES * whole[1], "nonzeros": whole[1] - zeros}
    spare = {name: own[name] - sum(map(amount, items)) for name, amount in AMOUNTS.items()}
    limits = {name: amount * own[name] if amount < 1 else amount for name, amount in targets.items()}
    for name, limit in limits.items():
        if limit >= own[name]:
            raise ValueError(f"The model's own {name} is {own[name]:,}: nothing to save. Received: {targets[name]!r}.")
    chosen = by_budget(items, tables, measured, spare, limits)
    if chosen is None:
        reached = least(items, tables, spare)
        told = ", ".join(f"{name}: {limits[name]:,.0f} asked{'' if targets[name] < 1 else ' (a share is below 1)'}, "
                         f"{reached[name]:,} at least" for name in limits)
        raise ValueError(f"Factors can't meet the target: {told}. Ask for more, give other kinds, or remove filters, "
                         "too (prune_filters).")
    return chosen


def _row(item, option, measured):
    one = option or Option(None, (), item.macs, item.parameters, 0.0, item.parameters - item.nonzeros)
    return FactorizedLayer(item.name, one.kind, one.ranks, one.macs, one.parameters, item.macs, item.parameters,
                           one.error, measured, one.nonzeros)
