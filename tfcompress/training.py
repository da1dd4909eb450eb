"""`fit`: train a classifier by a `Recipe`; the same seed gives the same weights."""

import math

import keras
import numpy as np


def fit(model, splits, recipe, *, seed=0, callbacks=(), verbose=0):
    """Compile `model` (probabilities or logits out) and train it on `splits.x_train`; returns the Keras History.

    The order of examples, the class draws and the augmentation come from `seed` alone, and dropout is seeded too: with
    threads pinned (`pin_threads`), the same start weights and seed give the same end weights. Validation loss and
    accuracy are logged each epoch. Works for any classifier, compressed or quantization-aware ones included.
    """
    keras.utils.set_random_seed(seed)
    for i, variable in enumerate(model.non_trainable_variables):
        if variable.name == "seed_generator_state":  # dropout's, drawn when the layer was made
            variable.assign([seed, i])
    steps = math.ceil((recipe.samples or len(splits.x_train)) / recipe.batch_size)
    model.compile(
        optimizer=optimizer(recipe, steps * recipe.epochs),
        loss=_loss(model, splits.x_train[:64], recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # on a CPU, XLA's code for small convolutions is slower, and making it takes seconds
    )
    return model.fit(
        batches(splits.x_train, splits.y_train, recipe, seed),
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        validation_data=(splits.x_val, keras.ops.one_hot(splits.y_val, splits.classes)),
        validation_batch_size=512,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=verbose,
    )


def pin_threads(threads=1):
    """Fix TensorFlow's threads in this process, for repeatable sums. RuntimeError when TF already runs."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def optimizer(recipe, steps):
    """The Adam (AdamW when weight_decay > 0) of `recipe` for a training of `steps` steps."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        warm = round(recipe.warmup * steps)
        options = {"warmup_target": rate, "warmup_steps": warm} if warm else {}
        rate = keras.optimizers.schedules.CosineDecay(0.0 if warm else rate, steps - warm, **options)
    if recipe.weight_decay:
        return keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    return keras.optimizers.Adam(rate)


def batches(x, y, recipe, seed):
    """Endless stream of (x, one-hot y) float32 batches, both mixed where the recipe says so; `y` are class indices.

    Each epoch has its own seed.

    >>> from tfcompress.recipes import Recipe
    >>> x, y = np.arange(6.0).reshape(6, 1), np.array([0, 0, 0, 0, 0, 1])
    >>> first = batches(x, y, Recipe(epochs=1, batch_size=6), seed=0)
    >>> sorted(next(first)[0].ravel().tolist())
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    >>> equal = batches(x, y, Recipe(epochs=1, batch_size=600, samples=600, balance=1), seed=0)
    >>> bool(270 < next(equal)[1][:, 1].sum() < 330)
    True
    """
    x, y = np.asarray(x, "float32"), np.asarray(y)
    targets = np.eye(y.max() + 1, dtype="float32")
    count = recipe.samples or len(x)
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        order = _draw(y, count, recipe.balance, rng)
        for start in range(0, count, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            batch = augment(x[chosen], recipe, rng), targets[y[chosen]]
            yield mixed(*batch, recipe.mixup, rng) if recipe.mixup else batch
        epoch += 1


def augment(x, recipe, rng):
    """A randomly shifted, scaled, noisy copy of the batch `x` (N, axes..., channels), by the fields of `recipe`."""
    if recipe.shift:
        x = _shifted(x, recipe.shift, rng)
    if not (recipe.scale or recipe.noise or recipe.wander):
        return x
    x = x.copy()
    part = x[..., : recipe.noisy_channels]
    ones = (len(x),) + (1,) * (x.ndim - 1)
    if recipe.scale:
        part *= 1 + recipe.scale * rng.standard_normal(ones, dtype="float32")
    if recipe.wander:
        time = np.linspace(0, 2 * np.pi, x.shape[1], dtype="float32").reshape((1, -1) + (1,) * (x.ndim - 2))
        turns, phase = rng.uniform(0.2, 1.5, ones), rng.uniform(0, 2 * np.pi, ones)
        part += (recipe.wander * rng.standard_normal(ones) * np.sin(turns * time + phase)).astype("float32")
    if recipe.noise:
        part += recipe.noise * rng.random(ones, dtype="float32") * rng.standard_normal(part.shape, dtype="float32")
    return x


def mixed(x, y, a, rng):
    """Mixup: each example and its target, `share * own + (1 - share) * another's`, shares drawn from Beta(a, a).

    >>> x, y = mixed(np.eye(3), np.eye(3), 1.0, np.random.default_rng(0))
    >>> bool((x == y).all()), x.sum(axis=1).round(6).tolist()
    (True, [1.0, 1.0, 1.0])
    """
    other, shares = rng.permutation(len(x)), rng.beta(a, a, len(x)).astype("float32")

    def mix(part):
        share = shares.reshape((-1,) + (1,) * (part.ndim - 1))
        return share * part + (1 - share) * part[other]

    return mix(x), mix(y)


def _draw(y, count, balance, rng):
    if balance == 0:
        return np.concatenate([rng.permutation(len(y)) for _ in range(math.ceil(count / len(y)))])[:count]
    counts = np.bincount(y)
    weight = np.where(counts > 0, np.maximum(counts, 1.0) ** -balance, 0)[y]
    return rng.choice(len(y), count, p=weight / weight.sum())


def _shifted(x, most, rng):
    padded = np.pad(x, [(0, 0)] + [(most, most)] * (x.ndim - 2) + [(0, 0)], mode="edge")
    rows = np.arange(len(x)).reshape((-1,) + (1,) * (x.ndim - 2))
    index = [rows]
    for axis in range(1, x.ndim - 1):
        start = rng.integers(0, 2 * most + 1, len(x)).reshape(rows.shape)
        along = np.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - 2 - axis))
        index.append(start + along)
    return padded[tuple(index)]


def _loss(model, x, smoothing):
    """Cross-entropy for what the model gives: probabilities (rounded ones too) or logits."""
    scores = np.asarray(model(x, training=False), "float32")
    probabilities = scores.min() >= 0 and np.allclose(scores.sum(-1), 1, atol=0.05)
    return keras.losses.CategoricalCrossentropy(from_logits=not probabilities, label_smoothing=smoothing)
