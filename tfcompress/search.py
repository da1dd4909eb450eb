"""The search of ``mixed_precision``: propose by the programme, measure the real file, tighten or fall back."""

from dataclasses import dataclass

import numpy as np
from rich.progress import track

from tfcompress.conversion.mixer import LADDER
from tfcompress.diff import diff
from tfcompress.gains import timed
from tfcompress.measure import evaluate
from tfcompress.programme import choose

BUDGETS = ("bytes", "latency_us")
TRIES = 30  # files made and measured
SNR_SAMPLES = 64
SWEEPS = 3  # over the layers, in search of files that take less
CLEARLY = {"bytes": 1.0, "latency_us": 0.98}  # less than measured noise


@dataclass(frozen=True)
class Tried:
    """An assignment whose file was measured: a precision a layer, and the amounts by budget ("max_drop" in points)."""

    chosen: tuple
    accuracy: float
    amounts: dict


class Search:
    """Files of one model against its budgets.

    Args:
        mixer: a ``Mixer``.
        data: ``(x, y)`` that accuracy is measured on.
        device: where times are measured.
    """

    def __init__(self, mixer, data, device):
        self.mixer, self.data, self.device = mixer, data, device
        path, _, _ = mixer.pipeline.write("float32", "float", "litert", ())
        self.float_file = path.read_bytes()
        self.accuracy = evaluate(self.float_file, *data).accuracy
        self._known, self._float_us, self._last = {}, None, (None, None)

    def goals(self, targets):
        """Budgets as amounts: shares below 1 are of the float32 file's."""
        own = {"bytes": len(self.float_file)}
        if "latency_us" in targets:
            self._float_us = timed({"float": self.float_file}, device=self.device)["float"].latency_p50_us
            own["latency_us"] = self._float_us
        return {name: float(target * own[name] if target < 1 else target) for name, target in targets.items()}

    def run(self, goals):
        """``(Tried, names of the budgets that can't be met)``: none where all are held."""
        names = [name for name in BUDGETS if name in goals]
        damages, costs, base = self._tables(names)
        best, least, uniform = None, [], _uniform(np.isfinite(damages))
        for name, cost in zip(names, costs, strict=True):  # what can't be met at all is told by the least file
            least.append(self._least(name, np.where(np.isfinite(damages), cost, np.inf), uniform, goals))
            if least[-1].amounts[name] > goals[name]:
                return least[-1], (name,)
            best = self._better(best, least[-1], goals, names)
        room = np.array([goals[name] - base[name] for name in names])
        chosen = choose(damages, costs, room)
        for _ in range(2 * TRIES):
            if chosen is None or self.tries >= TRIES:
                break
            found = self._measured(chosen, goals)
            best = self._better(best, found, goals, names)
            left = np.array([goals[name] - found.amounts[name] for name in names])
            taken = costs[:, np.arange(len(chosen)), chosen].sum(axis=1)
            if (left < 0).any():  # amounts of layers don't quite add up: so much less for the programme
                room = np.where(left < 0, np.minimum(room, taken + left), room)
                chosen = choose(damages, costs, room)
            elif found.amounts["max_drop"] <= goals["max_drop"]:
                return found, ()
            else:
                damages, chosen = self._fall_back(chosen, damages, costs, np.maximum(room, taken + left))
        for levels in uniform:
            best = self._better(best, self._measured(levels, goals), goals, names)
        if best is None:
            return least[0], tuple(names)
        return best, () if best.amounts["max_drop"] <= goals["max_drop"] else ("max_drop",)

    def _least(self, name, cost, uniform, goals):
        """The ``Tried`` that takes least of a budget, of the least sum and the files of one precision; where that is
        too much, changed layer by layer while real files take less."""
        starts = [cost.argmin(axis=1).tolist(), *uniform]
        levels = starts[int(np.argmin(self._taken(name, starts)))]
        found = self._measured(levels, goals)
        if found.amounts[name] > goals[name] and (name == "latency_us" or self.mixer.ranges):
            less = self._measured(self._lowered(name, levels, cost, goals), goals)
            found = min(found, less, key=lambda tried: tried.amounts[name])
        return found

    def _lowered(self, name, levels, cost, goals):
        """Levels that hold a budget, or that no change of one layer makes take less: layers share the operations
        between them, so that sums lie."""
        changed = True
        for _ in range(SWEEPS):
            if not changed:
                break
            changed = False
            for at in track(range(len(levels)), f"seeking less {name}", transient=True):
                moves = [levels[:at] + [int(new)] + levels[at + 1:] for new in np.flatnonzero(np.isfinite(cost[at]))
                         if new != levels[at]]
                taken = self._taken(name, [levels, *moves])
                best = int(np.argmin(taken))
                if taken[best] < CLEARLY[name] * taken[0]:
                    levels, changed = moves[best - 1], True
                    if taken[best] <= goals[name] and self._measured(levels, goals).amounts[name] <= goals[name]:
                        return levels
        return levels

    def _taken(self, name, assignments):
        """What the files of some assignments take of one budget; infinite for one that does not run."""
        picked = [[LADDER[level] for level in levels] for levels in assignments]
        if name == "bytes":
            return self.mixer.sizes(picked)
        try:
            return list(self._times({str(at): self.file(one) for at, one in enumerate(picked)}).values())
        except RuntimeError:
            return [self._taken(name, [one])[0] for one in assignments] if len(assignments) > 1 else [np.inf]

    def _better(self, best, found, goals, names):
        """The one with the smaller drop, of those that hold the budgets of bytes and time."""
        if any(found.amounts[name] > goals[name] for name in names):
            return best
        return found if best is None or found.amounts["max_drop"] < best.amounts["max_drop"] else best

    def _tables(self, names):
        """Damages (layers, precisions), infinite where not offered; costs (budgets, layers, precisions) beside the
        base's; the amounts of the base."""
        mixer = self.mixer
        shape = len(mixer.layers), len(LADDER)
        damages, costs = np.full(shape, np.inf), np.zeros((len(names), *shape))
        base = self._amounts(mixer.base, names)
        for at in track(range(len(mixer.layers)), "measuring what each layer bears", transient=True):
            levels = [LADDER.index(name) for name in mixer.offered[at]]
            damage, size = np.array(mixer.alone(at)).T
            damages[at, levels] = np.maximum(damage, 0)
            for k, name in enumerate(names):
                costs[k, at, levels] = size - base["bytes"] if name == "bytes" else self._beyond(at)
        self._last = None, None  # the last file is of layers that nothing was clipped in yet
        return damages, costs, base

    def _beyond(self, at):
        """What the precisions of one layer take beyond the base, in us."""
        files = {name: self.file(self.mixer.changed(at, name)) for name in self.mixer.offered[at]}
        found = self._times({"base": self.file(self.mixer.base), **files})
        return [found[name] - found["base"] for name in files]

    def _times(self, files):
        """Times of one run of files (bytes) by name, all timed beside the float file, in the unit of its first time."""
        found = timed({"float": self.float_file, **files}, device=self.device)
        unit = self._float_us / found["float"].latency_p50_us
        return {name: unit * found[name].latency_p50_us for name in files}

    def _measured(self, chosen, goals):
        """The ``Tried`` of an assignment of levels; an old one is not measured again.

        What holds all budgets will be taken, so it is timed once more, and the slower time counts: of thirty files the
        first one with a lucky time would be it.
        """
        picked, names = tuple(LADDER[level] for level in chosen), [name for name in BUDGETS if name in goals]
        if picked not in self._known:
            content = self.file(picked)
            self.mixer.check_runs(self._last[1])
            accuracy = evaluate(content, *self.data).accuracy
            amounts = self._amounts(picked, names) | {"max_drop": round(100 * (self.accuracy - accuracy), 9)}
            if "latency_us" in names and all(amounts[name] <= goal for name, goal in goals.items()):
                amounts["latency_us"] = max(amounts["latency_us"], self._amounts(picked, names)["latency_us"])
            self._known[picked] = Tried(picked, accuracy, amounts)
        return self._known[picked]

    @property
    def tries(self):
        """Files measured on the data."""
        return len(self._known)

    def _amounts(self, picked, names):
        """Bytes of a file, and its time where that is asked for, in the unit of the float file's first."""
        content = self.file(picked)
        amounts = {"bytes": len(content)}
        if "latency_us" in names:
            amounts["latency_us"] = self._times({"mixed": content})["mixed"]
        return amounts

    def file(self, picked):
        """Bytes of the file of an assignment; the last one is not made again."""
        if self._last[0] != tuple(picked):
            path = self.mixer.write(picked, self.mixer.pipeline.folder / "tried.tflite")
            self._last = tuple(picked), path
        return self._last[1].read_bytes()

    def _fall_back(self, chosen, damages, costs, room):
        """``(damages, levels)`` where one layer must have a step more: the one whose step repairs most of the damage,
        measured in the file itself, for which the others can pay; levels are None where there is none."""
        picked, steps = [LADDER[level] for level in chosen], []
        for at, level in enumerate(chosen):
            higher = [k for k in range(level + 1, len(LADDER)) if np.isfinite(damages[at, k])]
            steps += [(at, higher[0])] if higher else []
        hurt = self.mixer.judge([picked[:at] + [LADDER[level]] + picked[at + 1:] for at, level in steps])
        for number in np.argsort(hurt, kind="stable"):
            at, level = steps[number]
            left = damages.copy()
            left[at, :level] = np.inf
            levels = choose(left, costs, room)
            if levels is not None:
                return left, levels
        return damages, None

    def noise(self, picked):
        """``[(SNR in dB of a layer alone, in the final file)]``; None where its values can't be read."""
        mixer = self.mixer
        x = _joined(mixer.pipeline.batches, SNR_SAMPLES)
        final = _ratios(self.float_file, self.file(picked), x)
        paths, rows = mixer.write_alone(picked, mixer.pipeline.folder), []
        for at, layer in enumerate(mixer.layers):
            alone = _ratios(self.float_file, paths[at], x) if at in paths else {}
            worst = [min((found[made] for made in layer["outputs"] if made in found), default=None)
                     for found in (alone, final)]
            rows.append((np.inf if at not in paths and not layer["loop"] else worst[0], worst[1]))
        return rows


def _uniform(offered):
    """Levels of the files of one precision; a layer that does not have it takes the next one up, else its last.

    >>> _uniform(np.array([[True, False, True], [False, True, False]]))
    [[0, 1], [2, 1]]
    """
    rows = [np.flatnonzero(row).tolist() for row in offered]
    found = [tuple(next((level for level in own if level >= least), own[-1]) for own in rows)
             for least in np.flatnonzero(offered.any(axis=0))]
    return list(map(list, dict.fromkeys(found)))


def _ratios(first, second, x):
    return {layer.name: layer.snr_db for layer in diff(first, second, x).layers}


def _joined(batches, count):
    """The first samples of all batches, as arrays by input name."""
    each = max(1, count // len(batches))
    return {name: np.concatenate([batch[name][:each] for batch in batches])[:count] for name in batches[0]}
