"""``prune_filters``: remove filters, round by round, until the file meets a budget of MACs, bytes or measured time."""

import json
from dataclasses import dataclass

import keras
import numpy as np
from rich.progress import track

from android_bench.result import Result
from android_bench.store import Store
from tfcompress.cut import Cutter
from tfcompress.gains import table
from tfcompress.kept import load, save, work_in
from tfcompress.model import check_plain
from tfcompress.pruning.criteria import CRITERIA
from tfcompress.pruning.targets import by_position, check_labels
from tfcompress.tuning import training

METRICS = {"flops": "macs", "bytes": "raw_bytes", "latency_us": "latency_p50_us"}


@dataclass(frozen=True)
class FilterPruning:
    """What ``prune_filters`` gives back.

    Attributes:
        model: the small plain Keras model.
        steps: ``Result`` rows of the float32 files, the model's own first, then one a round: bytes, gzip, MACs, time
            (measured in turn with the model's own, and told in the unit of that one's first measurement: a computer
            that got slower meanwhile does not matter), and whether it pays (``facts["pays"]``).
        fenced: ``[(layer path, reason)]`` of what could not be followed.
    """

    model: keras.Model
    steps: list
    fenced: list

    def __str__(self):
        return table(self.steps)


def prune_filters(model, data, target, metric="flops", *, criterion="taylor", rounds=5, fit=1, teacher=None,
                  per="auto", round_to=1, device="host", folder=None):
    """Remove the filters that matter least until the model's float32 ``.tflite`` meets a budget.

    Each round scores the channels, silences those of the lowest score for their cost (all channels of a coupled group
    together, ranked over all layers; a tenth of each layer of ``model`` stays), removes them, checks that the small
    model gives what the silenced one gives, trains it, and measures its file. The amounts of the rounds fall
    geometrically; MACs and bytes end below the budget, or a thousandth above, a time at most a tenth above.

    Args:
        model: a built Functional or Sequential Keras model; not changed.
        data: ``(x, y)``, what criteria look at and what the model is trained on; y are class numbers or one-hot, or
            what the loss it was compiled with takes.
        target: a share of the model's own amount where it is below 1, else the amount itself; or a dict (``metric`` is
            not looked at then), ``{"flops": 0.4, "bytes": 0.3}``, where one file has to meet two budgets.
        metric: ``"flops"`` (multiply-accumulates of one run), ``"bytes"`` (of the file) or ``"latency_us"`` (measured
            on ``device``, never guessed).
        criterion: a name in ``pruning.criteria.CRITERIA``; the lowest scores go. With ``"behaviour"`` the layers behind
            take over what the channels that go did, before any training.
        rounds: how many times to score, remove and train.
        fit: ``fit(model, round)`` trains in place after round 1, 2, ...; or epochs, Adam 1e-3, ``model``'s own loss;
            without data nothing is trained.
        teacher: with a number of epochs: a Keras model to learn from, or True for ``model`` itself.
        per: what scores are divided by, so that channels go that matter little for what they cost. ``"budget"``: what
            the target counts; of two amounts that weighed sum which keeps most of the scores; MACs for a time.
            ``"flops"``, ``"bytes"``; ``"latency_us"``: the time of a layer's channels is measured on ``device``, by a
            file without half of them: some seconds a layer and round. ``None``: scores as they are. ``"auto"``:
            ``"budget"`` for criteria that tell what the loss or the outputs would change by, ``None`` for those that
            compare the filters of one layer (norms, ``bn_scale``, slopes, ``random``): costs would outweigh these.
        round_to: keep a multiple of so many channels in each layer.
        device: ``"host"`` or a phone's serial number, where the time is measured.
        folder: where rounds are kept; the same call (and ``fit``, which can't be checked) goes on there after a crash.

    Returns:
        A ``FilterPruning``; ``.model`` is a plain float32 Keras model, ``print(...)`` shows what each round saved.

    Raises:
        ValueError: an unknown option, a target that is no saving, data that doesn't fit, a folder of another call, or
            a budget that can't be met with a tenth of each layer left.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(16, 3, activation="relu"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> x, y = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32"), np.arange(64) % 2
    >>> small = prune_filters(model, (x, y), 0.5, criterion="l2_norm", rounds=1, fit=0)
    >>> small.model.layers[1].filters, small.steps[-1].macs / small.steps[0].macs
    (8, 0.5)
    """
    targets = dict(target) if isinstance(target, dict) else {metric: target}
    _check(model, targets, criterion, rounds, per, round_to)
    data = _checked(model, data)
    targets = {metric: float(amount) for metric, amount in targets.items()}
    tune = training(fit if data is not None or callable(fit) or teacher else 0, model, data, teacher)
    cutter = Cutter(model, data, criterion, per, round_to, device)
    if folder is None:
        return _rounds(cutter, targets, rounds, tune, None)
    with work_in(folder, model, data, fit, teacher, target=targets, criterion=criterion, rounds=rounds, per=per,
                 round_to=round_to, device=device) as held:
        return _rounds(cutter, targets, rounds, tune, held)


def _check(model, targets, criterion, rounds, per, round_to):
    check_plain(model)
    if any(None in t.shape[1:] for t in model.inputs):
        raise ValueError(f"The inputs {[tuple(t.shape) for t in model.inputs]} leave sizes open: nothing can be timed. "
                         "Build the model with the sizes that the device will see.")
    for name, value, known in (*(("metric", metric, METRICS) for metric in targets), ("criterion", criterion, CRITERIA),
                               ("per", per, (None, "auto", "budget", *METRICS))):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r}. Known: {list(known)}.")
    if len(targets) > 1 and "latency_us" in targets or not targets:
        raise ValueError(f"A budget is of flops, of bytes, of both, or of latency_us. Received: {targets}.")
    amounts = targets.values()
    if not all(isinstance(amount, (int, float, np.number)) and amount > 0 and amount != 1 for amount in amounts):
        raise ValueError("A target is a share of the model's own amount, above 0 and below 1, or the amount itself, "
                         f"above 1. Received: {targets}.")
    if any(not isinstance(number, int) or number < 1 for number in (rounds, round_to)):
        raise ValueError(f"`rounds` and `round_to` are ints >= 1. Received: rounds={rounds!r}, round_to={round_to!r}.")


def _checked(model, data):
    """``data`` with labels by output names as a list; a ValueError where it can't be used."""
    if data is None:
        return None
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise ValueError(f"`data` is (x, y), samples and labels, or None. Received: {type(data).__name__}.")
    counts = {len(array) for array in map(np.asarray, keras.tree.flatten(data)) if array.ndim}
    if len(counts) > 1:
        raise ValueError(f"`data` is (x, y) with as many samples as labels. Received: {sorted(counts)} of them.")
    x = keras.tree.flatten(data[0])
    if len(x) == len(model.inputs) == 1:                 # Keras drops or adds a last axis of 1
        given, wanted = tuple(np.shape(x[0])[1:]), tuple(model.inputs[0].shape[1:])
        if given != wanted and hasattr(data[0], "__len__") and (*given, 1) == wanted:
            data = np.asarray(data[0])[..., None], data[1]
        elif given != wanted and given != (*wanted, 1):
            raise ValueError(f"Model '{model.name}' takes samples of shape {wanted}. Received: x of shape "
                             f"{np.shape(x[0])}, the samples first.")
    if not all(np.isfinite(a).all() for a in map(np.asarray, x) if a.dtype.kind == "f"):
        raise ValueError("x holds numbers that are not finite: nothing can be scored by them.")
    y = by_position(model, data[1])
    if isinstance(y, (list, tuple)) and len(model.outputs) == 1:
        y = y[0] if len(y) == 1 and np.ndim(y[0]) else np.asarray(y)
    check_labels(model, y)
    return data[0], y


def _rounds(cutter, targets, rounds, fit, folder):
    steps = Store(folder / "steps.jsonl", key=("id",)) if folder else None

    def row_of(name, model):
        done = {row["id"]: row for row in steps.read()} if steps else {}
        if name in done:
            return Result.from_json(json.dumps(done[name]))
        row = cutter.row(name, model)
        if steps:
            steps.append(json.loads(row.to_json()))
        return row

    first = row_of("start", None)
    own = {metric: getattr(first, METRICS[metric]) for metric in targets}
    goals = {metric: target * own[metric] if target < 1 else target for metric, target in targets.items()}
    for metric, goal in goals.items():
        if goal >= own[metric]:
            raise ValueError(f"The model's own {metric} is {own[metric]:,.0f}: nothing to save. "
                             f"Received: target={targets[metric]}.")
    cutter.begin(first.latency_p50_us, goals)
    rows, model = [first], cutter.start
    for number in track(range(1, rounds + 1), "removing filters", transient=True):
        name, path = f"round {number}", folder / f"round_{number}.keras" if folder else None
        if path and path.exists():
            model = load(path, cutter.start)
        else:
            model = cutter.cut(model, {metric: own[metric] * (goal / own[metric]) ** (number / rounds)
                                       for metric, goal in goals.items()})
            fit(model, number)
            if path:
                save(model, path)
        rows.append(row_of(name, model))
    for metric, goal in goals.items():
        left = getattr(rows[-1], METRICS[metric])
        if left > goal * (1.1 if metric == "latency_us" else 1.001):
            raise ValueError(f"{left:,.0f} {metric} are left, not the {goal:,.0f} that were asked for. Set a higher "
                             f"target, or take more rounds. Not followed: {cutter.fences or 'nothing'}.")
    return FilterPruning(model, rows, cutter.fences)
