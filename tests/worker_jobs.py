"""What the workers of tests/test_workers.py do: ``python worker_jobs.py JOB FOLDER``, or that by tfcompress train."""

import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfcompress as tc
from tfcompress import distribute
from tfcompress.wrapper import read

L = keras.layers
BATCH, STEPS = 16, 8
X = np.random.default_rng(0).standard_normal((BATCH * 4, 6, 6, 2)).astype("float32")
Y = (X.mean((1, 2, 3)) > 0).astype("int32")
KINDS = {
    "plain": lambda net: net,
    "pruned": lambda net: tc.compress(net, tc.Prune(tc.Polynomial(0.75, 0, 6)), include_head=True),
    "admm": lambda net: tc.compress(net, tc.ADMM((0, 1, 2), end=6, rounds=3), include_head=True),
    "aware": tc.quantize_aware,
}


def net(dropout=0.0):
    keras.utils.set_random_seed(3)
    i = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, activation="relu", name="conv")(i)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    x = L.Dropout(dropout)(x) if dropout else x
    return keras.Model(i, L.Dense(2, name="out")(x))


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def trained(strategy, prefix=""):
    """``{"prefix kind name": array}`` of all variables of the four kinds after ``STEPS`` steps, and their losses."""
    found = {}
    for kind, make in KINDS.items():
        with strategy.scope():
            model = compiled(make(net()), keras.optimizers.SGD(0.1, momentum=0.9))
        callbacks = [tc.CompressionCallback(2)] if kind in ("pruned", "admm") else []
        log = model.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=callbacks).history
        assert int(read(model.optimizer.iterations)) == STEPS
        values = {v.path: read(v) for v in model.variables} | {"loss": log["loss"], "accuracy": log["accuracy"]}
        if kind == "aware":
            values |= {"evaluate": model.evaluate(X, Y, batch_size=BATCH, verbose=0),
                       "predict": model.predict(X, batch_size=BATCH, verbose=0)}
        found |= {f"{prefix}{kind} {name}": value for name, value in values.items()}
    return found


def alone(folder):
    """One process with the whole batch; then two replicas of one process, which shares every batch."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    np.savez(folder / "alone.npz", **trained(distribute.strategy()))
    np.savez(folder / "mirrored.npz", **trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])))


def workers(folder):
    strategy = distribute.strategy()
    found = trained(strategy)
    del distribute._Workers.reduce                       # is Keras still in need of it?
    with strategy.scope():
        model = compiled(net(), "sgd")
    try:
        model.fit(X, Y, batch_size=BATCH, verbose=0)
        error = ""
    except ValueError as failed:
        error = str(failed)
    np.savez(folder / f"worker{distribute._task()[1]}.npz", error_of_keras=error, **found)


class _Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if not distribute.is_chief() and int(read(self.model.optimizer.iterations)) == 10:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder):
    """Train to the end; then the same again, where worker 1 kills itself in epoch 2; started anew, go on from there."""
    strategy, index = distribute.strategy(), distribute._task()[1]

    def run(path, *more):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            both = tc.Chain((tc.Prune(tc.Polynomial(0.5, 0, 8)), tc.ADMM((0, 1, 2), end=16, rounds=4)))
            model = compiled(tc.compress(net(0.3), both, include_head=True), keras.optimizers.Adam(0.02))
        backup = distribute.Backup(path)
        first = backup.restore(model)
        model.fit(X, Y, batch_size=BATCH, epochs=5, initial_epoch=first, verbose=0,
                  callbacks=[tc.CompressionCallback(), backup, *more])
        variables = distribute._variables(model)
        return {"first": first} | {f"{i} {v.path}": read(v) for i, v in enumerate(variables)}

    if not (folder / "whole1.npz").exists():
        np.savez(folder / f"whole{index}.npz", **run(folder / "whole.backup.npz"))
        run(folder / "killed.backup.npz", _Die())
    np.savez(folder / f"resumed{index}.npz", **run(folder / "killed.backup.npz"))


if __name__ == "__main__":
    {"alone": alone, "workers": workers, "killed": killed}[sys.argv[1]](Path(sys.argv[2]))
