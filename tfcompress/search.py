"""The search of ``mixed_precision``: propose by the programme, measure the real file, tighten or fall back."""

import contextlib
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
CLEARLY = {"bytes": 1.0, "latency_us": 0.98}  # times of one file differ by up to 2 %


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
        uniform = _uniform(np.isfinite(damages))
        for name, cost in zip(names, costs, strict=True):
            self._seek_least(name, np.where(np.isfinite(damages), cost, np.inf), uniform, goals)
            nearest = self._nearest((name,), goals)
            if nearest.amounts[name] > goals[name]:
                return nearest, (name,)
        room, start = np.array([goals[name] - base[name] for name in names]), self.tries
        best = self._best(names, goals)
        if best is not None:  # a real file within the budgets, whatever the sums say of it
            room = np.maximum(room, sum(self._left(best, costs, names, goals)))
        chosen = choose(damages, costs, room)
        for _ in range(2 * TRIES):
            if chosen is None or self.tries - start >= TRIES:
                break
            found = self._measured(chosen, goals)
            taken, left = self._left(found, costs, names, goals)
            if (left < 0).any():  # amounts of layers don't quite add up: so much less for the programme
                room = np.where(left < 0, np.minimum(room, taken + left), room)
                chosen = choose(damages, costs, room)
            elif found.amounts["max_drop"] <= goals["max_drop"]:
                return found, ()
            else:
                damages, chosen = self._fall_back(chosen, damages, costs, np.maximum(room, taken + left))
        return self._last_resort(uniform, names, goals)

    def _last_resort(self, uniform, names, goals):
        """What ``run`` gives back when the programme has no more to propose: files of one precision count, too."""
        best = self._best(names, goals)
        for levels in uniform if best is None or best.amounts["max_drop"] > goals["max_drop"] else ():
            with contextlib.suppress(RuntimeError, ValueError):  # one that does not run is no candidate
                self._measured(levels, goals)
        best = self._best(names, goals)
        if best is None:
            return self._nearest(names, goals), tuple(names)
        return best, () if best.amounts["max_drop"] <= goals["max_drop"] else ("max_drop",)

    def _best(self, names, goals):
        """Of the files that hold the budgets of bytes and time, the one with the smallest drop; None without one."""
        held = [tried for tried in self._known.values() if all(tried.amounts[name] <= goals[name] for name in names)]
        return min(held, key=lambda tried: tried.amounts["max_drop"], default=None)

    def _nearest(self, names, goals):
        """The file that comes nearest to some budgets: the largest of its amounts, as a share of the goal, is least."""
        return min(self._known.values(), key=lambda tried: max(tried.amounts[name] / goals[name] for name in names))

    def _left(self, tried, costs, names, goals):
        """``(sums of the layers' costs, amounts that the real file leaves)`` for each budget."""
        levels = [LADDER.index(name) for name in tried.chosen]
        left = np.array([goals[name] - tried.amounts[name] for name in names])
        return costs[:, np.arange(len(levels)), levels].sum(axis=1), left

    def _seek_least(self, name, cost, uniform, goals):
        """Measure what takes least of a budget, of the least sum, the files of one precision and those known; where
        that is too much, layers are changed while real files take clearly less."""
        known = [tuple(LADDER.index(precision) for precision in picked) for picked in self._known]
        starts = [list(levels) for levels in dict.fromkeys([tuple(cost.argmin(axis=1).tolist()), *uniform, *known])]
        levels = starts[int(np.argmin(self._taken(name, starts)))]
        if self._measured(levels, goals).amounts[name] > goals[name]:
            self._measured(self._lowered(name, levels, cost, goals), goals)

    def _lowered(self, name, levels, cost, goals):
        """Levels whose file holds a budget, or that no change of one layer makes take clearly less, as far as
        ``SWEEPS`` over the layers show: layers share the operations between them, so that sums lie."""
        for _ in range(SWEEPS):
            before = levels
            for at in track(range(len(levels)), f"seeking less {name}", transient=True):
                moves = [levels[:at] + [int(new)] + levels[at + 1:] for new in np.flatnonzero(np.isfinite(cost[at]))
                         if new != levels[at]]
                taken = self._taken(name, [levels, *moves]) if moves else [0.0]
                best = int(np.argmin(taken))
                if 0 < best and taken[best] <= goals[name]:
                    levels = moves[best - 1]
                    if self._measured(levels, goals).amounts[name] <= goals[name]:
                        return levels
                elif taken[best] < CLEARLY[name] * taken[0]:
                    levels = moves[best - 1]
            if levels == before:
                break
        return levels

    def _taken(self, name, assignments):
        """What the files of some assignments take of one budget; infinite for one that does not run."""
        picked = [[LADDER[level] for level in levels] for levels in assignments]
        if name == "bytes":
            return [size or np.inf for size in self.mixer.sizes(picked)]
        try:
            return list(self._times({str(at): self.file(one) for at, one in enumerate(picked)}).values())
        except RuntimeError:
            if len(assignments) > 1:
                return [self._taken(name, [one])[0] for one in assignments]
            self._times({})  # raises where it is not the file but the device
            return [np.inf]

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
            runs = np.isfinite(damage)
            for k, name in enumerate(names):
                costs[k, at, levels] = size - base["bytes"] if name == "bytes" else self._beyond(at, runs)
        self._last = None, None  # the last file is of layers that nothing was clipped in yet
        return damages, costs, base

    def _beyond(self, at, runs):
        """What the precisions of one layer take beyond the base, in us; 0 for those that don't run."""
        offered, own = self.mixer.offered[at], self.mixer.base[at]
        files = {name: self.file(self.mixer.changed(at, name)) for name, run in zip(offered, runs, strict=True)
                 if run and name != own}
        found = self._times({own: self.file(self.mixer.base), **files}) if files else {}
        return [found[name] - found[own] if name in found else 0.0 for name in offered]

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
    [(0, 1), (2, 1)]
    """
    rows = [np.flatnonzero(row).tolist() for row in offered]
    found = [tuple(next((level for level in own if level >= least), own[-1]) for own in rows)
             for least in np.flatnonzero(offered.any(axis=0))]
    return list(dict.fromkeys(found))


def _ratios(first, second, x):
    return {layer.name: layer.snr_db for layer in diff(first, second, x).layers}


def _joined(batches, count):
    """The first samples of all batches, as arrays by input name."""
    each = max(1, count // len(batches))
    return {name: np.concatenate([batch[name][:each] for batch in batches])[:count] for name in batches[0]}
