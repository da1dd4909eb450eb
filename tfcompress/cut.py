"""One cut of ``prune_filters``: the lowest-scored channels go until the file has no more than the budget leaves it."""

import keras
import numpy as np

from tfcompress.convert import convert
from tfcompress.gains import paid, timed, weighed
from tfcompress.macs import file_macs
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.choose import RELATIVE, floors, label_costs, label_scores, label_times, lowest
from tfcompress.pruning.compensate import compensate
from tfcompress.pruning.shrink import check_copy, kept, remove
from tfcompress.pruning.targets import compiled_loss

TRIES = 8  # files made to meet a budget
CLOSE = 0.03  # how near a measured time has to come
WEIGHTS = np.linspace(0, 1, 11)  # of the first of two amounts in the cost of a channel


class Cutter:
    """What stays the same over the cuts of one model.

    Attributes:
        file: the model's own float32 ``.tflite``, which the others are timed beside.
        known: ``[(MACs asked for, us)]`` of the models that were timed, the first model's own in front.
        goals: ``{metric: amount}`` of the last cut: one that can't be met is told at the first.
        fences, floors: ``[(path, reason)]`` of what can't be followed in the first model, and how many channels of its
            layers must stay in all cuts.
    """

    def __init__(self, model, data, criterion, per, round_to, device):
        self.start, self.data, self.criterion, self.per = model, data, criterion, per
        self.round_to, self.device = round_to, device
        self.file, self.known, self.goals = convert(model).content, [], {}
        self._first = None                               # row of the first model, once it is there
        self._last = model, self.file                    # the model whose row was made last, and its file
        channels = Channels(model)
        check_copy(model, channels)
        self.fences, self.floors = list(dict.fromkeys(channels.fences)), floors(channels)
        self.macs = channels.macs(np.ones(channels.count, bool))

    def row(self, name, model=None):
        """The ``Result`` of ``model``, measured beside the first one's file; without a model that one's own."""
        if model is None:
            self._first = paid(weighed(self.file, timed({name: self.file}, device=self.device)[name]))
            return self._first
        self._last = model, convert(model).content
        found = timed({"start": self.file, name: self._last[1]}, device=self.device)
        self._first = self._first or weighed(self.file, found["start"])
        first = self._first.replace(latency_p50_us=found["start"].latency_p50_us)
        row = weighed(self._last[1], found[name])
        return paid(row, first).replace(latency_p50_us=row.latency_p50_us / first.latency_p50_us * self.known[0][1])

    def begin(self, latency_us, goals):
        """Say what the first model takes, in whose unit the times of all others are told, and what the end shall be."""
        self.known, self.goals = [(self.macs, latency_us)], goals

    def cut(self, model, goals):
        """``model`` with so few channels that the amounts in ``goals``, ``{metric: amount}``, are met.

        MACs and bytes are those of the file, and not exceeded as far as ``TRIES`` go; a time is met within 10 %.
        """
        channels = Channels(model)
        scores = label_scores(self._with_loss(model), channels, self.criterion, self.data)
        costs = self._costs(model, channels, scores, tuple(goals))
        if "latency_us" in goals:
            return self._cut_to_time(model, scores, costs, goals["latency_us"])
        file = self._last[1] if self._last[0] is model else convert(model).content
        everything = np.ones(channels.count, bool)
        fixed = len(file) - 4 * channels.parameters(everything)      # what is no weight: graph, names, gaps
        share = channels.macs(everything) / file_macs(file)       # a file counts some layers otherwise
        for _ in range(TRIES):
            fresh = Channels(model)                                  # removing writes into the graph's layers
            counts = {"flops": lambda keep, fresh=fresh, share=share: fresh.macs(keep) / share,
                      "bytes": lambda keep, fresh=fresh, fixed=fixed: 4 * fresh.parameters(keep) + fixed}
            self._reachable(fresh, scores, counts)
            small = self._removed(fresh, scores, costs, [(counts[metric], goal) for metric, goal in goals.items()])
            made = convert(small).content
            bytes_over = len(made) - goals.get("bytes", np.inf)
            macs_over = file_macs(made) / goals.get("flops", np.inf)
            if bytes_over <= 0 and macs_over <= 1:
                break
            fixed, share = fixed + max(0, bytes_over), share / max(1, macs_over)
        return small

    def _with_loss(self, model):
        """``model`` as criteria see it: with the first model's loss, whatever ``fit`` has compiled it for."""
        options = compiled_loss(self.start)
        if model is self.start and not isinstance(model.loss if options else None, dict):
            return model
        model = keras.Model(model.input, model.output)
        if options:
            model.compile(**options)
        return model

    def _costs(self, model, channels, scores, metrics):
        """What scores are divided by: arrays ``(channels.count,)`` to try."""
        counted = tuple("flops" if metric == "latency_us" else metric for metric in metrics)
        per = self.per if self.per != "auto" else None if self.criterion in RELATIVE else "budget"
        chosen = {None: (), "budget": counted}.get(per, (per,))
        found = [label_times(model, channels, scores, lambda small: self.timed(convert(small).content))
                 if metric == "latency_us" else label_costs(channels, metric) for metric in chosen]
        found = [np.maximum(cost / cost[np.isfinite(scores)].max(initial=1e-30), 1e-9) for cost in found]
        if len(found) < 2:
            return found or [np.ones(channels.count)]
        return [weight * found[0] + (1 - weight) * found[1] for weight in WEIGHTS]

    def _reachable(self, channels, scores, counts):
        least = kept(channels, lowest(channels, scores, lambda keep: False, self.floors), self.round_to, scores)
        for metric, goal in self.goals.items():
            left = counts[metric](least)
            if left > goal:
                raise ValueError(f"{goal:,.0f} {metric} can't be met: {left:,.0f} are left with a tenth of each layer "
                                 f"(round_to={self.round_to}). Not followed: {self.fences or 'nothing'}. Set a higher "
                                 "target.")

    def _removed(self, channels, scores, costs, limits):
        """The model within the ``limits``, ``[(count of a keep, most)]``, that keeps the largest sum of scores."""
        best, most = None, -np.inf
        own = np.isfinite(scores) & (channels.roots(np.arange(channels.count)) == np.arange(channels.count))
        for cost in costs:
            order = scores / cost

            def rounded(keep, order=order):
                return kept(channels, keep, self.round_to, order)

            keep = rounded(lowest(channels, order, lambda keep, rounded=rounded: all(
                count(rounded(keep)) <= goal for count, goal in limits), self.floors))
            if scores[own & keep].sum() > most:
                best, most = keep, scores[own & keep].sum()
        if self.criterion == "behaviour":
            compensate(channels, best, self.data[0])
        return remove(channels, np.flatnonzero(~best))

    def _cut_to_time(self, model, scores, costs, goal):
        """Models of other sizes are made and timed beside the first one until one takes ``goal`` us."""
        best, most = None, 1.1 * goal
        for _ in range(TRIES):
            macs, fresh = interpolated(self.known, goal), Channels(model)
            if macs is None and best is not None:
                break
            macs = macs or min(size for size, time in self.known if time < goal)
            small = self._removed(fresh, scores, costs, [(fresh.macs, macs)])
            time = self.timed(convert(small).content)
            self.known.append((macs, time))
            if best is None or (time > most, abs(time - goal)) < (best[0] > most, abs(best[0] - goal)):
                best = time, small                       # times jump: rather too fast than too slow
            if abs(time - goal) <= CLOSE * goal:
                break
        if best is None or best[0] > most:
            fastest = min(time for _, time in self.known)
            raise ValueError(f"{goal:.1f} us can't be met on {self.device}: {fastest:.1f} us is the fastest of "
                             f"{len(self.known)} sizes. Not followed: {self.fences or 'nothing'}. Set a higher target, "
                             "or take more rounds.")
        return best[1]

    def timed(self, file):
        """Measured us of ``file``, in the unit of the first model's time: both run in turn."""
        found = timed({"first": self.file, "small": file}, device=self.device)
        return found["small"].latency_p50_us / found["first"].latency_p50_us * self.known[0][1]


def interpolated(points, goal):
    """The MACs at which a model may take ``goal`` us, by measured ``(MACs, us)``; ``None`` where they leave no room.

    Times jump with the number of channels: between a size that takes more and one that takes less it goes on inside,
    and beyond all of them by no more than the square of what is missing.

    >>> interpolated([(100, 50.0)], 25.0), interpolated([(100, 50.0), (50, 30.0)], 40.0)
    (50.0, 75.0)
    >>> interpolated([(100, 50.0), (99.5, 30.0)], 40.0) is None
    True
    """
    near = sorted(points, key=lambda point: (abs(point[1] - goal), point[0]))
    above, below = [p for p in near if p[1] >= goal], [p for p in near if p[1] < goal]
    if above and below:
        (much, slow), (little, fast) = above[0], below[0]
        low, high = sorted((much, little))
        if high - low < 0.01 * high:
            return None
        inside = little + (much - little) * (goal - fast) / (slow - fast)
        return min(max(inside, low + 0.1 * (high - low)), high - 0.1 * (high - low))
    (macs, time), *others = near
    straight, most = macs * goal / time, macs * (goal / time) ** 2
    if not others or others[0][1] == time or others[0][0] == macs:
        return straight
    secant = macs + (others[0][0] - macs) / (others[0][1] - time) * (goal - time)
    return min(max(secant, min(straight, most)), max(straight, most))
