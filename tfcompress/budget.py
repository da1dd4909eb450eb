"""``prune_filters``: remove filters, round by round, until the file meets a budget of MACs, bytes or measured time."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.progress import track

from android_bench.result import Result
from android_bench.store import Store, only_one, remember_config
from tfcompress.convert import convert
from tfcompress.gains import payoff, table, timed
from tfcompress.inspect import inspect
from tfcompress.model import check_model, leaves
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.choose import label_costs, label_scores, label_times, lowest
from tfcompress.pruning.compensate import compensate
from tfcompress.pruning.criteria import CRITERIA
from tfcompress.pruning.shrink import kept, remove
from tfcompress.wrapper import read

METRICS = {"flops": "macs", "bytes": "raw_bytes", "latency_us": "latency_p50_us"}
TRIES = 8  # files measured to meet a time
CLOSE = 0.03  # how near the measured time has to come


@dataclass(frozen=True)
class FilterPruning:
    """What ``prune_filters`` gives back.

    Attributes:
        model: the small plain Keras model.
        steps: ``Result`` rows of the float32 files, the model's own first, then one a round: bytes, gzip, MACs,
            measured time, and whether it pays (``facts["pays"]``).
        fenced: ``[(layer path, reason)]`` of what could not be followed.
    """

    model: keras.Model
    steps: list
    fenced: list

    def __str__(self):
        return table(self.steps)


def prune_filters(model, data, target, metric="flops", *, criterion="taylor", rounds=5, fit=None, per=None,
                  round_to=1, device="host", folder=None):
    """Remove the filters that matter least until the model's float32 ``.tflite`` meets a budget.

    Each round scores the channels, silences the lowest (all channels of a coupled group together, ranked over all
    layers; at least a tenth of each layer stays), removes them, checks that the small model gives what the silenced one
    gives, trains it, and measures its file. The amounts of the rounds fall geometrically.

    Args:
        model: a built Functional or Sequential Keras model; not changed.
        data: ``(x, y)``, what criteria look at and what the model is trained on; y are class numbers or one-hot.
        target: a share of the model's own amount where it is below 1, else the amount itself.
        metric: ``"flops"`` (multiply-accumulates of one run), ``"bytes"`` (of the file) or ``"latency_us"`` (measured
            on ``device``, never guessed).
        criterion: a name in ``pruning.criteria.CRITERIA``; the lowest scores go. With ``"behaviour"`` the layers behind
            take over what the channels that go did, before any training.
        rounds: how many times to score, remove and train.
        fit: ``fit(model, round)`` trains the small model in place after each round (1, 2, ...); by default one epoch on
            ``data`` with Adam 1e-3 and the loss ``model`` was compiled with. ``lambda model, round: None`` leaves it.
        per: ``"flops"``, ``"bytes"`` or ``"latency_us"``: divide scores by what a channel costs. The time of a layer's
            channels is measured on ``device``, by a file without half of them: some seconds a layer and round.
        round_to: keep a multiple of so many channels in each layer.
        device: ``"host"`` or a phone's serial number, where the time is measured.
        folder: where rounds are kept; the same call (and the same ``fit``, which can't be checked) goes on there after
            a crash. Default: nowhere.

    Returns:
        A ``FilterPruning``; ``.model`` is a plain float32 Keras model, ``print(...)`` shows what each round saved.

    Raises:
        ValueError: an unknown metric or criterion, a target that is no saving, data that doesn't fit, a folder of
            another call, or a budget that can't be met with a tenth of each layer left.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(16, 3, activation="relu"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> x, y = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32"), np.arange(64) % 2
    >>> small = prune_filters(model, (x, y), 0.5, criterion="l2_norm", rounds=1, fit=lambda model, round: None)
    >>> small.model.layers[1].filters, small.steps[-1].macs / small.steps[0].macs
    (8, 0.5)
    """
    _check(model, data, target, metric, criterion, rounds, per)
    if fit is None and data is not None and not model.compiled:
        guessed_loss(model, *data)                       # says at once where it can't be told
    work = _Work(model, data, metric, criterion, fit, per, round_to, device)
    if folder is None:
        return _rounds(work, target, rounds, None)
    with only_one(folder):
        remember_config(folder, dict(model=_fingerprint(model), data=_digest(data), target=target, metric=metric,
                                     criterion=criterion, rounds=rounds, per=per, round_to=round_to, device=device))
        return _rounds(work, target, rounds, Path(folder))


def _check(model, data, target, metric, criterion, rounds, per):
    check_model(model)
    if any(None in t.shape[1:] for t in model.inputs):
        raise ValueError(f"The inputs {[tuple(t.shape) for t in model.inputs]} leave sizes open: nothing can be timed. "
                         "Build the model with the sizes that the device will see.")
    for name, value, known in (("metric", metric, METRICS), ("criterion", criterion, CRITERIA),
                               ("per", per, (None, *METRICS))):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r}. Known: {list(known)}.")
    if not isinstance(rounds, int) or rounds < 1 or not target > 0:
        raise ValueError(f"Expected rounds >= 1 and a target > 0. Received: rounds={rounds!r}, target={target!r}.")
    if data is not None and not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise ValueError(f"`data` is (x, y), samples and labels, or None. Received: {type(data).__name__}.")


class _Work:
    """One call of ``prune_filters``: what stays the same over its rounds."""

    def __init__(self, model, data, metric, criterion, fit, per, round_to, device):
        self.start, self.data, self.metric, self.criterion, self.per = model, data, metric, criterion, per
        self.round_to, self.device = round_to, device
        self.fit = fit or self._one_epoch
        self.file = convert(model).content
        self.known = []                                  # (MACs, us) of models that were timed, the first one first

    def _one_epoch(self, model, number):
        if self.data is None or self.data[1] is None:
            return
        x, y = self.data
        loss = self.start.loss if self.start.compiled else guessed_loss(model, x, y)
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.fit(x, y, epochs=1, batch_size=64, verbose=0)

    def cut(self, model, goal):
        """``model`` with so few channels that the metric is at most ``goal``."""
        channels = Channels(model)
        scores = label_scores(model, channels, self.criterion, self.data)
        if self.per == "latency_us":
            scores = scores / label_times(model, channels, scores, lambda small: self.timed(convert(small).content))
        elif self.per:
            scores = scores / np.maximum(label_costs(channels, self.per), 1e-30)
        if self.metric == "latency_us":
            return self._cut_to_time(model, channels, scores, goal)
        if self.metric == "bytes":
            return self._cut_to_bytes(model, channels, scores, goal)
        whole = channels.macs(np.ones(channels.count, bool))     # a file counts some layers otherwise
        share = goal / inspect(convert(model).content).macs
        return self._cut_to(channels, scores, channels.macs, share * whole)

    def _cut_to(self, channels, scores, count, goal):
        left = count(kept(channels, lowest(channels, scores, lambda keep: False), self.round_to, scores))
        if left > goal:
            raise ValueError(f"{goal:,.0f} {self.metric} can't be met: {left:,.0f} with a tenth of each layer left"
                             f" (round_to={self.round_to}). Not followed: {channels.fences or 'nothing'}. Ask for "
                             "more, or take more rounds.")
        return self._removed(channels, scores, lambda keep: count(keep) <= goal)

    def _cut_to_bytes(self, model, channels, scores, goal):
        """What is no weight stays as it is, but for the gaps between tensors: hence the second try."""
        fixed = len(convert(model).content) - 4 * channels.parameters(np.ones(channels.count, bool))
        for _ in range(TRIES):
            fresh = Channels(model)                      # removing writes into the graph's layers
            small = self._cut_to(fresh, scores, lambda keep, fresh=fresh, more=fixed: 4 * fresh.parameters(keep) + more,
                                 goal)
            over = len(convert(small).content) - goal
            if over <= 0:
                break
            fixed += over
        return small

    def _removed(self, channels, scores, enough):
        keep = lowest(channels, scores, lambda keep: enough(kept(channels, keep, self.round_to, scores)))
        keep = kept(channels, keep, self.round_to, scores)
        if self.criterion == "behaviour":
            compensate(channels, keep, self.data[0])
        return remove(channels, np.flatnonzero(~keep))

    def _cut_to_time(self, model, channels, scores, goal):
        """Models of other sizes are made and timed beside the first one until one takes ``goal`` us."""
        tried, best = None, None
        for _ in range(TRIES):
            macs = _interpolated(self.known, goal)
            if tried is not None and abs(macs - tried) < 1e-3 * tried:
                break
            tried, fresh = macs, Channels(model)
            small = self._removed(fresh, scores, lambda keep, fresh=fresh, macs=macs: fresh.macs(keep) <= macs)
            time = self.timed(convert(small).content)
            self.known.append((macs, time))
            if best is None or abs(time - goal) < abs(best[0] - goal):
                best = time, small
            if abs(time - goal) <= CLOSE * goal:
                break
        if best[0] > 1.1 * goal:
            raise ValueError(f"{goal:.1f} us can't be met on {self.device}: {best[0]:.1f} us is the nearest of "
                             f"{len(self.known)} sizes. Not followed: {channels.fences or 'nothing'}.")
        return best[1]

    def timed(self, file):
        """Measured us of ``file``, in the units of the first model's time: both run in turn."""
        found = timed({"first": self.file, "small": file}, device=self.device)
        return found["small"].latency_p50_us / found["first"].latency_p50_us * self.known[0][1]

    def whole(self):
        """The first model's MACs."""
        channels = Channels(self.start)
        return channels.macs(np.ones(channels.count, bool))

    def row(self, name, model):
        """This model's row, measured beside the first one's file."""
        return payoff({"start": self.file, name: convert(model).content}, device=self.device)[1]


def _interpolated(points, goal):
    """The MACs at which a model takes ``goal`` us, by the two measured sizes that lie nearest.

    >>> _interpolated([(100, 50.0)], 25.0), _interpolated([(100, 50.0), (50, 30.0)], 40.0)
    (50.0, 75.0)
    """
    near = sorted(points, key=lambda point: (abs(point[1] - goal), point[0]))
    above = [p for p in near if p[1] >= goal][:1]
    below = [p for p in near if p[1] < goal][:1]
    pair = above + below if above and below else near[:2]
    (macs, time), other = pair[0], pair[1:]
    if not other or other[0][1] == time:
        return macs * goal / time
    slope = (other[0][0] - macs) / (other[0][1] - time)
    return max(macs + slope * (goal - time), 0.02 * macs) if slope > 0 else macs * goal / time


def _rounds(work, target, rounds, folder):
    steps = Store(folder / "steps.jsonl", key=("id",)) if folder else None
    first = payoff({"start": work.file}, device=work.device)[0]
    if "latency_us" in (work.metric, work.per):
        work.known = [(work.whole(), first.latency_p50_us)]
    own = getattr(first, METRICS[work.metric])
    goal = target * own if target < 1 else target
    if goal >= own:
        raise ValueError(f"The model's own {work.metric} is {own:,.0f}: nothing to save. Received: target={target}.")
    rows, model = [first], work.start
    for number in track(range(1, rounds + 1), "removing filters", transient=True):
        name, path = f"round {number}", folder / f"round_{number}.keras" if folder else None
        if path and path.exists():
            known = {type(layer).__name__: type(layer) for _, layer in leaves(work.start)}
            model = keras.models.load_model(path, custom_objects=known, compile=False)
        else:
            model = work.cut(model, own * (goal / own) ** (number / rounds))
            work.fit(model, number)
            if path:
                _save(model, path)
        done = {row["id"]: row for row in steps.read()} if steps else {}
        row = Result.from_json(json.dumps(done[name])) if name in done else work.row(name, model)
        if steps and name not in done:
            steps.append(json.loads(row.to_json()))
        rows.append(row)
    left = getattr(rows[-1], METRICS[work.metric])
    if left > goal * (1.1 if work.metric == "latency_us" else 1.001):
        raise ValueError(f"{left:,.0f} {work.metric} are left, not the {goal:,.0f} that were asked for. Take more "
                         f"rounds, or ask for more. Not followed: {Channels(work.start).fences or 'nothing'}.")
    return FilterPruning(model, rows, list(dict.fromkeys(Channels(work.start).fences)))


def _save(model, path):
    part = path.with_name(f"part_{path.name}")
    model.save(part)
    part.rename(path)


def _fingerprint(model):
    digest = hashlib.sha256(repr(model.get_config()).encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(read(weight)).tobytes())
    return digest.hexdigest()


def _digest(data):
    digest = hashlib.sha256()
    for array in keras.tree.flatten(data if data is not None else ()):
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def guessed_loss(model, x, y):
    """Cross-entropy for what the model gives, probabilities or logits, and for labels as they come."""
    if len(model.outputs) > 1 or model.outputs[0].shape[-1] == 1:
        raise ValueError("The loss of a model with outputs of the shapes "
                         f"{[tuple(t.shape) for t in model.outputs]} can't be guessed. Compile it first, or pass fit=.")
    scores = np.asarray(model(keras.tree.map_structure(lambda a: a[:32], x), training=False), "float32")
    logits = scores.min() < 0 or not np.allclose(scores.sum(-1), 1, atol=0.05)
    one_hot = np.ndim(y) > 1 and np.shape(y)[-1] > 1
    kind = keras.losses.CategoricalCrossentropy if one_hot else keras.losses.SparseCategoricalCrossentropy
    return kind(from_logits=bool(logits))
