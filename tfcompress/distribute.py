"""Training on several processes or machines: the strategy to build a model under, and a backup to go on from.

``tfcompress train --workers 2 train.py`` starts the processes; this is what ``train.py`` calls. Each has a whole copy
of the model and sees its share of every batch. Masks, duals and codes need no exchange: each worker computes them from
the same weights. Ranges of quantization-aware training are those of all shares together.

    from tfcompress import distribute
    strategy = distribute.strategy()                     # before any other work with TensorFlow
    backup = distribute.Backup("runs/net.npz")
    with strategy.scope():
        model = tc.compress(net(), tc.Prune(...))
        model.compile("sgd", "mse")
    model.fit(x, y, batch_size=64, epochs=9, initial_epoch=backup.restore(model),
              callbacks=[tc.CompressionCallback(), backup])
    if distribute.is_chief():
        tc.strip(model).save("small.keras")

``batch_size`` counts the samples of all workers together; steps equal those of one process with that batch, but for a
last batch that can't be shared evenly, whose samples then weigh a little differently. What looks at data
(``calibrate``, or ``data`` of a ``CompressionCallback``) must be given the same data on each.
"""

import io
import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from android_bench.store import write_file
from tfcompress.wrapper import read


def _task():
    """``(number of workers, index of this one)``, as the environment variable TF_CONFIG says."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        workers = [host for job in ("chief", "worker") for host in config.get("cluster", {}).get(job, [])]
        task = config.get("task", {})
        first = len(config["cluster"].get("chief", [])) if task.get("type") == "worker" else 0
        return len(workers), first + int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError('TF_CONFIG is JSON: {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
                         f'"index": 0}}}}. Received: {os.environ["TF_CONFIG"]!r}.') from error


def is_chief():
    """Whether this process is the one that writes files: worker 0, or the only one there is."""
    return _task()[1] == 0


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """The strategy of several workers, with a ``reduce`` that bears what Keras 3 asks of it.

    ``fit`` and ``evaluate`` of Keras 3 (seen: 3.15, with TensorFlow 2.21) fail under TensorFlow's own strategy:
    https://github.com/keras-team/keras/issues/20585. ``_maybe_symbolic_build`` reduces a whole batch, a tuple, which
    only MirroredStrategy maps over; ``reduce_per_replica`` averages the logs, scalars, over an axis that they haven't.
    A test (tests/test_workers.py) fails as soon as Keras works without it: then this class can go.
    """

    def reduce(self, reduce_op, value, axis):
        if tf.nest.is_nested(value):                     # Keras looks at shapes and dtypes: it builds metrics from them
            return tf.nest.map_structure(lambda v: tf.TensorSpec(self._own(v).shape, self._own(v).dtype), value)
        return super().reduce(reduce_op, value, axis=None if self._own(value).shape.rank == 0 else axis)

    def _own(self, value):
        return self.experimental_local_results(value)[0]


def strategy(seed=0):
    """The ``tf.distribute`` strategy of this process: build, compress and compile the model under its ``scope()``.

    Several workers in TF_CONFIG (``tfcompress train`` sets it): a ``MultiWorkerMirroredStrategy`` that Keras 3 can use;
    tf_keras models may use it, too. One worker: ``MirroredStrategy`` over its GPUs, or nothing to distribute.

    Args:
        seed: of all random numbers of Keras, numpy and TensorFlow, the same on each worker, so that what is built
            outside the scope is the same, and arrays are shuffled alike: then the workers' shares make the whole batch.
            (Keras shuffles them alike in each epoch, too.) None leaves them alone: seed them, then, or don't shuffle.

    Raises:
        RuntimeError: TensorFlow has worked already; a worker's first work must be to find the others.

    >>> strategy(seed=None).num_replicas_in_sync             # here: one worker, no GPU
    1
    """
    if _task()[0] > 1:
        try:
            found = _Workers()
        except RuntimeError as error:
            raise RuntimeError("TensorFlow has worked already. Call tfcompress.distribute.strategy() first, before "
                               f"models, tensors and datasets are made. TensorFlow says: {error}") from error
    else:
        gpus = tf.config.list_logical_devices("GPU")
        found = tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
    if seed is not None:
        keras.utils.set_random_seed(seed)
    return found


class Backup(keras.callbacks.Callback):
    """Saves all that ``fit`` goes on from, after every ``every``-th epoch; ``restore`` puts it back.

    That is: weights, masks, duals, ranges, seeds, and the optimizer's variables with its step, bit by bit. A run that
    was killed and begun again ends like one that was not, if the order of its data depends on the epoch alone: that of
    arrays does, as ``strategy`` seeds their shuffling. Other callbacks start anew.

    Args:
        path: of one ``.npz`` file, written by the chief alone, to a temporary name that is then renamed. It stays when
            training is done: delete it to train from the start.
        every: epochs between backups, >= 1. Where epochs are long: ``fit(steps_per_epoch=...)``.
    """

    def __init__(self, path, every=1):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` is a number of epochs, an int >= 1. Received: every={every!r}.")
        self.path, self.every = Path(path), every

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 and is_chief():
            write_file(self.path, _packed(self.model, epoch + 1))

    def restore(self, model):
        """Put the chief's backup, or else its values as they are, into ``model`` on all workers.

        Every worker has to call it; only the chief needs the file. Returns the epoch to go on with: ``fit``'s
        ``initial_epoch``, 0 without a backup.

        Raises:
            ValueError: the model is not compiled, or the file is not of this model.
        """
        if getattr(model, "optimizer", None) is None:
            raise ValueError(f"Model '{model.name}' has no optimizer: compile it before Backup.restore(model).")
        if not model.optimizer.built:
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        content = b""
        if is_chief():
            content = self.path.read_bytes() if self.path.exists() else _packed(model, 0)
        return _unpacked(model, _of_the_chief(content, model.distribute_strategy), self.path)


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _packed(model, epoch):
    """The bytes of an ``.npz`` file of all variables, in their order."""
    file = io.BytesIO()
    np.savez(file, epoch=epoch, **{f"{i} {v.path}": read(v) for i, v in enumerate(_variables(model))})
    return file.getvalue()


def _unpacked(model, content, path):
    try:
        saved = dict(np.load(io.BytesIO(content)))
        epoch = int(saved.pop("epoch"))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} was not written by Backup ({error}). Delete it to train from the start.") from error
    variables = _variables(model)
    wanted, found = [tuple(v.shape) for v in variables], [value.shape for value in saved.values()]
    if wanted != found:                                  # names count up when a model is made twice in one process
        raise ValueError(f"{path} is of another model or optimizer. Received: {len(found)} variables, {found[:4]} ...; "
                         f"'{model.name}' has {len(wanted)}, {wanted[:4]} ... Delete it to train from the start, or "
                         "name another file.")
    for variable, value in zip(variables, saved.values(), strict=True):
        variable.assign(value)
    return epoch


def _of_the_chief(content, strategy):
    """The bytes that the chief passes, on every worker: they need not share a disk."""
    if _task()[0] < 2:
        return content

    def add(array):
        replica = tf.distribute.get_replica_context()
        own = tf.where(tf.equal(replica.replica_id_in_sync_group, 0), array, tf.zeros_like(array))
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, own)

    def total(array):                                    # the others add zeros: exact
        summed = tf.function(lambda own: strategy.run(add, args=(own,)))(tf.constant(array))
        return strategy.experimental_local_results(summed)[0].numpy()

    size = int(total(np.array([len(content)], "int64"))[0])
    words = np.zeros(-(-size // 4), "int32")
    words.view("uint8")[:len(content)] = np.frombuffer(content, "uint8")
    return total(words).tobytes()[:size]
