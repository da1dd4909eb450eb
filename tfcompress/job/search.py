"""Other settings of a job's stages, tried by Optuna: fewest cost within what may be lost."""

import copy
import math

import optuna

from android_bench.store import Store
from tfcompress.job.plan import FOUND
from tfcompress.study.pool import LocalPool, RayPool

RANGES = {"keep": (0.3, 0.9), "sparsity": (0.3, 0.95)}
BITS = (8, 4, 2)
RATES = (0.5, 2.0)                                       # times what the plan set, all stages alike
DIED = ("The worker process", "Ray:")                    # how the pools begin what is no fault of a trial
BEYOND = 100.0                                           # what a loss of 1 beyond the drop adds to log(cost)


def best(folder, resolved, data, workers, ray, say):
    """The resolved job with the stages of the best trial; trials are in ``trials.jsonl``, and are never done twice.

    Trial n is suggested by a sampler with the job's seed + n from all trials of earlier rounds (``workers`` trials
    make a round): a search that was killed goes on as it would have.
    """
    store, count = Store(folder / "trials.jsonl", key=("number", )), resolved["job"]["search"]
    control = Store(folder / "rows.jsonl", key=("stage",)).read()[0]
    pool = None
    try:
        for start in range(0, count, workers):
            numbers = range(start, min(count, start + workers))
            suggested = suggest(store.read()[:start], numbers, resolved)
            waiting = [n for n in numbers if (n,) not in store]
            if waiting and pool is None:
                module = "tfcompress.job.worker"
                pool = RayPool(workers, ray, module) if ray else LocalPool(workers, folder, module)
            for row in _run(pool, folder, resolved, control, {n: suggested[n] for n in waiting}) if waiting else ():
                if row.get("error", "").startswith(DIED):
                    raise RuntimeError(f"Trial {row['number']}: {row['error']}. The same command tries it again.")
                store.append(row)
                say(_line(row, count))
            ordered = sorted(store.read(), key=lambda row: row["number"])
            store.rewrite(ordered)                       # they end in any order, and are read in theirs
    finally:
        if pool is not None:
            pool.close()
    found = winner(store.read(), resolved["drop"])
    say(f"best of {count}: trial {found['number']}")
    return resolved | {"stages": found["stages"]}


def winner(rows, drop):
    """The cheapest trial that loses no more than ``drop``; where none does, the one that loses least.

    >>> rows = [{"number": 0, "loss": 0.02, "cost": 5}, {"number": 1, "loss": 0.01, "cost": 9}]
    >>> winner(rows, 0.01)["number"], winner(rows, 0.05)["number"], winner(rows, 0.0)["number"]
    (1, 0, 1)
    """
    done = [row for row in rows if "error" not in row]
    if not done:
        raise RuntimeError(f"All {len(rows)} trials failed. The first said: {rows[0]['error']}")
    good = [row for row in done if row["loss"] <= drop]
    return min(good, key=lambda row: row["cost"]) if good else min(done, key=lambda row: row["loss"])


def suggest(rows, numbers, resolved):
    """``{number: settings}`` of trials, from rows of earlier ones. Trial 0 has the plan's own settings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, found = _space(resolved["stages"]), {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for row in rows:
        if "error" not in row:
            value = math.log(row["cost"]) + BEYOND * max(0.0, row["loss"] - resolved["drop"])
            study.add_trial(optuna.create_trial(params=row["settings"], distributions=space, value=value))
    for number in numbers:
        study.sampler = optuna.samplers.TPESampler(seed=resolved["seed"] + number, n_startup_trials=5,
                                                   multivariate=True, constant_liar=True)
        found[number] = _own(resolved["stages"]) if number == 0 else study.ask(space).params
    return found


def applied(stages, settings):
    """The stages with a trial's settings in them; a stage that is switched off is left out.

    >>> stages = [{"stage": "factorize", "keep": 0.7, "epochs": 2, "learning_rate": 0.1}]
    >>> applied(stages, {"factorize": True, "keep": 0.5, "rate": 2.0})
    [{'stage': 'factorize', 'keep': 0.5, 'epochs': 2, 'learning_rate': 0.2}]
    """
    found = []
    for stage in copy.deepcopy(stages):
        stage = {name: value for name, value in stage.items() if name not in FOUND}
        if settings.get(stage["stage"], True):
            stage |= {name: settings[name] for name in ("keep", "sparsity", "bits") if name in stage}
            if "learning_rate" in stage:
                stage["learning_rate"] *= settings["rate"]
            found.append(stage)
    return found


def _space(stages):
    names = {stage["stage"] for stage in stages}
    space = {"rate": optuna.distributions.FloatDistribution(*RATES, log=True)}
    if "quantize" in names:
        space["bits"] = optuna.distributions.CategoricalDistribution(BITS)
    if "factorize" in names:
        space["factorize"] = optuna.distributions.CategoricalDistribution((True, False))
    for stage in stages:
        for key in RANGES.keys() & stage.keys():
            (low, high), own = RANGES[key], _own(stages)[key]
            space[key] = optuna.distributions.FloatDistribution(min(low, own), max(high, own))
    return space


def _own(stages):
    own = {"rate": 1.0} | ({"factorize": True} if any(stage["stage"] == "factorize" for stage in stages) else {})
    own |= {key: stage[key] for stage in stages for key in (*RANGES, "bits") if key in stage}
    return own | {key: value[0] for key, value in own.items() if isinstance(value, list)}


def _run(pool, folder, resolved, control, suggested):
    """A row a trial, as they end."""
    jobs = []
    for number, settings in suggested.items():
        config = {"plan": resolved | {"stages": applied(resolved["stages"], settings)}, "control": control}
        jobs.append({"config": config, "name": str(number), "control": str(folder / "control.keras"),
                     "output": str(folder / "search" / f"{number:03}.tflite")})
    for job, answer in pool.run(jobs):
        number = int(job["name"])
        yield {"number": number, "settings": suggested[number]} | (answer.get("record") or {"error": answer["error"]})


def _line(row, count):
    if "error" in row:
        return f"trial {row['number'] + 1} of {count}: {row['error'][:200]}"
    told = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                     for key, value in row["settings"].items())
    return f"trial {row['number'] + 1} of {count}: cost {row['cost']:,.0f}, lost {row['loss']:+.4f}   ({told})"
