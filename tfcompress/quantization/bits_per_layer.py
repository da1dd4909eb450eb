"""Bits for each layer under a budget: ``choose_bits`` asks the network, by Bayesian optimization."""

import re

import keras
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import norm

from tfcompress.copies import copy_layer
from tfcompress.layout import kernels
from tfcompress.model import check_plain, clone, head, leaves
from tfcompress.quantization.adaptive_float import AdaptiveFloat
from tfcompress.wrapper import read

MOST_EXPONENT, FEWEST, MOST = 5, 2, 8                    # exponent bits, and bits of a weight, that are tried
POOL, STARTS = 512, 4


def expected_improvement(points, tried, values, noise=1e-4):
    """How far below ``min(values)`` each of ``points`` (n, d) is expected to come; ``tried`` (k, d) gave ``values``.

    A Gaussian process with the kernel ``exp(-|a - b|^2 / 2)`` on the points as they are (standardise them before) and
    on standardised values.
    """
    values = np.asarray(values, "float64")
    spread = values.std() or 1.0
    scaled = (values - values.mean()) / spread
    factor = cho_factor(np.exp(-cdist(tried, tried, "sqeuclidean") / 2) + noise * np.eye(len(tried)))
    across = np.exp(-cdist(points, tried, "sqeuclidean") / 2)
    mean = across @ cho_solve(factor, scaled)
    variance = 1.0 - np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
    deviation = np.sqrt(np.maximum(variance, 1e-12))
    gain = scaled.min() - mean
    return spread * (gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation))


def bayesian_minimum(objective, points, trials, *, seed=0, first=(), patience=None):
    """``(index of the best point, {index: value})``: the minimum of a costly ``objective(index)`` over known points.

    Evaluates ``first`` and random points up to four, then always where a Gaussian process expects most; stops after
    ``trials``, after ``patience`` evaluations without a gain, or when all points are known.

    Args:
        objective: index of a point -> a finite number, as low as possible.
        points: (n, d) array; points near each other should do alike. Standardised here, axis by axis.
        trials: evaluations at most.

    >>> grid = np.array([[a, b] for a in range(6) for b in range(6)], "float64")
    >>> best, known = bayesian_minimum(lambda i: float(np.sum((grid[i] - [4, 1]) ** 2)), grid, trials=18)
    >>> grid[best].tolist(), len(known) <= 18
    ([4.0, 1.0], True)
    """
    points = np.asarray(points, "float64")
    deviation = points.std(0)
    scaled = (points - points.mean(0)) / np.where(deviation > 0, deviation, 1.0)
    order = np.random.default_rng(seed).permutation(len(points))
    start = list(dict.fromkeys([*first, *order[:max(STARTS - len(first), 0)]]))
    known, stale = {}, 0
    while len(known) < min(trials, len(points)) and (patience is None or stale < patience):
        if len(known) < len(start):
            index = int(start[len(known)])
        else:
            rest = np.array([i for i in range(len(points)) if i not in known])
            tried = list(known)
            index = int(rest[np.argmax(expected_improvement(scaled[rest], scaled[tried], [known[i] for i in tried]))])
        best = min(known.values(), default=np.inf)
        known[index] = float(objective(index))
        stale = 0 if known[index] < best else stale + 1
    return min(known, key=known.get), known


def choose_bits(model, data, bits_per_weight=4.0, *, by="loss", trials=40, include_head=False, seed=0):
    """Rules for ``compress`` that give each kernel an ``AdaptiveFloat`` of its own bits, in a budget for all together.

    Each kernel and number of bits (2..8) gets the exponent and mantissa bits of the least squared error. Which kernel
    gets how many bits is found by Bayesian optimization of the loss, or the accuracy, on ``data``, over 512 ways to
    spend the budget. The same bits everywhere is the first of them, the least sum of the kernels' relative errors the
    second: the result is never worse than both there. Train behind it: ``compress(model, choose_bits(model, (x, y)))``.

    Args:
        model: a trained Functional or Sequential model, compiled: with its loss.
        data: ``(x, y)`` as ``fit`` takes them, some hundred samples that are not used to judge the result.
        bits_per_weight: budget, at least 2: all chosen kernels together take at most so many bits a weight.
        by: ``"loss"``, which tells ways apart that classify alike, or ``"accuracy"`` of a classifier (Keras's metric;
            of several outputs, the mean), which leaves such ways to the loss.
        trials: evaluations of the network at most.
        include_head: also the kernels of the layers that make the model's outputs.

    Returns:
        ``[(regex of the tensor's path, AdaptiveFloat)]``, in the model's order.

    Raises:
        ValueError: a budget below 2 bits a weight, no kernels, a model that isn't compiled, a loss that isn't a number,
            ``by`` that is neither.

    Liu et al., ICCV 2021 ("Adaptive Floating-Point"), whose code anneals a score of the weights alone instead.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(8, name="b"),
    ...                           keras.layers.Dense(2)])
    >>> model.compile(loss="mse")
    >>> rules = choose_bits(model, (np.eye(4), np.eye(4)[:, :2]), bits_per_weight=5.0, trials=4)
    >>> [path for path, _ in rules], 32 * rules[0][1].bits + 64 * rules[1][1].bits <= 5 * 96
    (['a/kernel', 'b/kernel'], True)
    """
    check_plain(model)
    if not model.compiled:
        raise ValueError(f"Model '{model.name}' is not compiled. Call model.compile(loss=...): the loss judges.")
    if by not in ("loss", "accuracy"):
        raise ValueError(f"Expected by='loss' or 'accuracy'. Received: by={by!r}.")
    spared = set() if include_head else head(model)
    found = {f"{path}/{key}": pair for path, layer in leaves(model) if id(layer) not in spared
             for key, pair in kernels(layer).items()}
    if not found:
        raise ValueError(f"Model '{model.name}' has no kernels but its head's. Pass include_head=True.")
    sizes = np.array([int(np.prod(view.canonical)) for _, view in found.values()])
    if bits_per_weight < FEWEST or trials < 1:
        raise ValueError(f"No format has fewer than {FEWEST} bits: {sizes.sum():,} weights take "
                         f"{FEWEST * sizes.sum():,} bits. Expected bits_per_weight >= {FEWEST}, trials >= 1. Received: "
                         f"bits_per_weight={bits_per_weight!r}, trials={trials!r}.")
    formats = [_formats(view.to(read(variable), np)) for variable, view in found.values()]
    errors = np.array([[error for _, _, error in own] for own in formats])
    pool = allocations(errors, sizes, int(bits_per_weight * sizes.sum()), np.random.default_rng(seed))
    judged = _judge(model, list(found), formats, data, by)
    best, _ = bayesian_minimum(lambda i: judged(pool[i]), pool, trials, seed=seed, first=(0, 1)[:len(pool)])
    methods = [own[bits - FEWEST][0] for own, bits in zip(formats, pool[best], strict=True)]
    return [(re.escape(path), method) for path, method in zip(found, methods, strict=True)]


def _formats(w):
    """``[(method, quantized weights, relative squared error)]`` for 2 to 8 bits."""
    found, power = [], max(float(np.mean(np.square(w, dtype="float64"))), 1e-300)
    for bits in range(FEWEST, MOST + 1):
        tried = []
        for e in range(min(MOST_EXPONENT, bits - 1) + 1):
            method = AdaptiveFloat(e, bits - 1 - e)
            q = np.array(method.apply(w, {}))
            tried.append((method, q, float(np.mean(np.square(q - w, dtype="float64"))) / power))
        found.append(min(tried, key=lambda entry: entry[2]))
    return found


def allocations(errors, sizes, budget, rng):
    """Ways to spend ``budget`` bits on tensors of ``sizes`` weights: (ways, tensors) bits of a weight, no two alike.

    The first is even, the second spends a bit where it lowers the sum of ``errors`` (tensors, formats) most for what it
    costs; half of the others are near these, half random. No more bits fit into any of them.
    """
    even = _filled(np.full(len(sizes), min(budget // sizes.sum(), MOST)), sizes, budget, rng)
    greedy = np.full(len(sizes), FEWEST)
    while True:
        fits = (greedy < MOST) & (greedy @ sizes + sizes <= budget)
        if not fits.any():
            break
        at = greedy - FEWEST
        now = errors[np.arange(len(sizes)), at]
        gain = (now - errors[np.arange(len(sizes)), np.minimum(at + 1, errors.shape[1] - 1)]) / sizes
        greedy[np.argmax(np.where(fits, gain, -np.inf))] += 1
    ways = {tuple(even): None, tuple(greedy): None}
    for number in range(4 * POOL):
        if len(ways) >= POOL:
            break
        if number % 2:
            start = np.minimum(rng.integers(FEWEST, MOST + 1, len(sizes)), rng.integers(FEWEST, MOST + 1, len(sizes)))
        else:
            start = (even if number % 4 else greedy) - rng.integers(0, 2, len(sizes))
        ways[tuple(_filled(start, sizes, budget, rng))] = None
    return np.array(list(ways))


def _filled(bits, sizes, budget, rng):
    """``bits`` brought into the budget: taken from, then given to, tensors drawn at random, until none more fits."""
    bits = np.clip(bits, FEWEST, MOST)
    while bits @ sizes > budget:
        bits[rng.choice(np.flatnonzero(bits > FEWEST))] -= 1
    while True:
        fits = np.flatnonzero((bits < MOST) & (bits @ sizes + sizes <= budget))
        if not len(fits):
            return bits
        bits[rng.choice(fits)] += 1


def _accuracies(model):
    """Keras's accuracy of each output."""
    return ["accuracy"] if len(model.outputs) == 1 else {name: ["accuracy"] for name in model.output_names}


def _judge(model, paths, formats, data, by):
    """``judged(bits)``, as low as possible: the network on ``data`` with so many bits for each of ``paths``."""
    (x, y), samples = data, len(keras.tree.flatten(data)[0])
    twin = clone(model, copy_layer)
    twin.compile(loss=model.loss, loss_weights=model.get_compile_config().get("loss_weights"),
                 metrics=_accuracies(model) if by == "accuracy" else None)  # fmt: skip
    own = {f"{path}/{key}": pair for path, layer in leaves(twin) for key, pair in kernels(layer).items()}

    def judged(bits):
        for path, formats_of, number in zip(paths, formats, bits, strict=True):
            variable, view = own[path]
            variable.assign(view.back(formats_of[number - FEWEST][1], np))
        found = twin.evaluate(x, y, batch_size=256, verbose=0, return_dict=True)
        if not np.isfinite(found["loss"]):
            raise ValueError(f"The loss of model '{model.name}' on `data` is not a number. Received: {found['loss']}.")
        if by == "loss":
            return found["loss"]
        wrong = 1 - np.mean([value for name, value in found.items() if name.endswith("accuracy")])
        return wrong + np.arctan(found["loss"]) / (np.pi * samples)            # less than one sample: for ties alone

    return judged
