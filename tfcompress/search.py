"""The search of ``mixed_precision``: propose by the programme, measure the real file, tighten or fall back."""

from dataclasses import dataclass

import numpy as np
from rich.progress import track

from tfcompress.conversion.mixer import LADDER
from tfcompress.gains import timed
from tfcompress.measure import evaluate
from tfcompress.programme import choose

BUDGETS = ("bytes", "latency_us")
TRIES = 30  # files that the programme proposes
SWEEPS = 3  # over the layers, in search of files that take less
CLEARLY = 0.98  # times of one file differ by up to 2 %


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
        offered = np.isfinite(damages)
        for name, cost in zip(names, costs, strict=True):
            self._seek((name,), [np.where(offered, cost, np.inf).argmin(axis=1)], offered, goals)
            nearest = self._nearest((name,), goals)
            if nearest.amounts[name] > goals[name]:
                return nearest, (name,)
        room, start = np.array([goals[name] - base[name] for name in names]), self.tries
        if self._best(names, goals) is None:  # each budget is held by a file of its own
            both = choose(damages, costs, room)
            self._seek(names, [] if both is None else [both], offered, goals)
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
                room = np.maximum(room, taken + left)
                damages, chosen = self._fall_back(chosen, damages, costs, room)
        return self._last_resort(offered, names, goals)

    def _last_resort(self, offered, names, goals):
        """What ``run`` gives back when the programme has no more to propose: files of one precision count, too."""
        best = self._best(names, goals)
        for levels in _uniform(offered) if best is None or best.amounts["max_drop"] > goals["max_drop"] else ():
            try:
                self._measured(levels, goals)
            except RuntimeError:  # a file that does not run is no candidate
                self._check_device(names)
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

    def _seek(self, names, starts, offered, goals):
        """Measure files until one holds the budgets ``names``: the starts, those of one precision and those known, by
        what they take; then the one that takes least, changed layer by layer while real files take clearly less."""
        known = [[LADDER.index(precision) for precision in picked] for picked in self._known]
        starts = [list(levels) for levels in dict.fromkeys(
            tuple(map(int, levels)) for levels in [*starts, *_uniform(offered), *known])]
        shares = self._shares(names, starts, goals)
        least, *others = np.argsort(shares, kind="stable")
        for at in [least, *(at for at in others if shares[at] <= 1)]:
            if self._held(starts[at], names, goals):
                return
        self._measured(self._lowered(names, starts[least], offered, goals), goals)

    def _held(self, levels, names, goals):
        """Whether the file, measured, holds these budgets."""
        return all(self._measured(levels, goals).amounts[name] <= goals[name] for name in names)

    def _lowered(self, names, levels, offered, goals):
        """Levels whose file holds the budgets, or that no change of one layer makes take clearly less, as far as
        ``SWEEPS`` over the layers show: layers share the operations between them, so that sums lie."""
        clearly = CLEARLY if "latency_us" in names else 1.0
        for _ in range(SWEEPS):
            before = levels
            for at, level in self._gains(names, levels, offered, goals):
                move = _changed(levels, at, level)
                old, new = self._shares(names, [levels, move], goals)
                if new < clearly * old or new <= 1:
                    levels = move
                if new <= 1 and self._held(move, names, goals):
                    return move
            if levels == before:
                break
        return levels

    def _gains(self, names, levels, offered, goals):
        """``[(layer, level)]`` for each layer of which another level makes the file take less, the most first."""
        found = []
        for at in track(range(len(levels)), f"seeking less {' and '.join(names)}", transient=True):
            others = [int(level) for level in np.flatnonzero(offered[at]) if level != levels[at]]
            if not others:
                continue
            moves = [_changed(levels, at, level) for level in others]
            own, *shares = self._shares(names, [levels, *moves], goals)
            best = int(np.argmin(shares))
            if shares[best] < own:
                found.append((shares[best] / own, at, others[best]))
        return [(at, level) for _, at, level in sorted(found)]

    def _shares(self, names, assignments, goals):
        """What the files of some assignments take of the budgets: the largest of the shares; infinite for one that
        does not run."""
        picked = [[LADDER[level] for level in levels] for levels in assignments]
        shares = np.zeros(len(picked))
        if "bytes" in names:
            shares = np.array([size or np.inf for size in self.mixer.sizes(picked)]) / goals["bytes"]
        if "latency_us" in names:
            times = self._run_times({str(at): self.file(one) for at, one in enumerate(picked)})
            shares = np.maximum(shares, np.array(list(times.values())) / goals["latency_us"])
        return shares

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
                costs[k, at, levels] = size - base["bytes"] if name == "bytes" else self._beyond(at, damage)
            damages[at] = np.where(np.isfinite(costs[:, at]).all(axis=0), damages[at], np.inf)
        self._last = None, None  # the last file is of layers that nothing was clipped in yet
        return damages, costs, base

    def _beyond(self, at, damage):
        """What the precisions of one layer take beyond the base, in us; infinite for those that don't run."""
        offered, own = self.mixer.offered[at], self.mixer.base[at]
        files = {name: self.file(self.mixer.changed(at, name)) for name, hurt in zip(offered, damage, strict=True)
                 if name != own and np.isfinite(hurt)}
        found = self._run_times({own: self.file(self.mixer.base), **files}) if files else {own: 0.0}
        return [found.get(name, np.inf) - found[own] for name in offered]

    def _run_times(self, files):
        """As ``_times``; infinite for a file that does not run."""
        try:
            return self._times(files)
        except RuntimeError:
            if len(files) > 1:
                return {name: self._run_times({name: content})[name] for name, content in files.items()}
            self._check_device(("latency_us",))
            return dict.fromkeys(files, np.inf)

    def _check_device(self, names):
        """Raises where it is not a file that does not run but the device that is gone."""
        if "latency_us" in names:
            self._times({})

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
        """Files whose accuracy was measured."""
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
        hurt = self.mixer.judge([_changed(picked, at, LADDER[level]) for at, level in steps])
        for number in np.argsort(hurt, kind="stable"):
            at, level = steps[number]
            left = damages.copy()
            left[at, :level] = np.inf
            levels = choose(left, costs, room)
            if levels is not None:
                return left, levels
        return damages, None


def _changed(choices, at, choice):
    return [*choices[:at], choice, *choices[at + 1:]]


def _uniform(offered):
    """Levels of the files of one precision; a layer that does not have it takes the next one up, else its last.

    >>> _uniform(np.array([[True, False, True], [False, True, False]]))
    [(0, 1), (2, 1)]
    """
    rows = [np.flatnonzero(row).tolist() for row in offered]
    found = [tuple(next((level for level in own if level >= least), own[-1]) for own in rows)
             for least in np.flatnonzero(offered.any(axis=0))]
    return list(dict.fromkeys(found))
