"""A method: a pure description of how one weight tensor is compressed.

Methods are frozen dataclasses. Their fields are their hyper-parameters, so equality, ``repr`` and saving come free.
Every array a method sees is in the *canonical view*: float32, output channels on the last axis (see ``layout.py``).
"""

from dataclasses import fields

import keras
from keras import ops

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tfcompress needs the TensorFlow backend of Keras 3. Received: KERAS_BACKEND={keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before keras is imported.")

serializable = keras.saving.register_keras_serializable("tfcompress")


class Config:
    """A value object that Keras can save: a frozen dataclass whose config is its fields."""

    def get_config(self):
        return {f.name: keras.saving.serialize_keras_object(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


class Method(Config):
    """How one weight tensor is compressed. Override what differs from "do nothing".

    Attributes:
        trainable: names of state that the optimizer trains.
        bits: bits a compressed weight needs; ``None`` where the method does not quantize.
        needs_model: whether ``update`` looks at the network or the data. Its ``model`` is then a plain twin, whose
            weights are what the compressed layers let through.
        structured: whether whole output channels go. ``compress`` then adds the method to biases, and to the gamma and
            beta of batch normalization: ``layout.vectors``.
    """

    trainable = ()
    bits = None
    needs_model = False
    structured = False
    vectors_last = False

    @property
    def milestones(self):
        """Optimizer steps at which ``update`` must run, whatever the callback's ``every`` is."""
        return ()

    def init(self, w):
        """State for weight ``w`` (array, canonical view): ``{name: array}``."""
        return {}

    def apply(self, w, state):
        """What the forward pass sees: a tensor of ``w``'s shape, differentiable in ``w`` and trainable state."""
        return w

    def penalty(self, w, state):
        """A scalar tensor added to the loss, or ``None``."""
        return None

    def update(self, weights, states, step, model=None, data=None):
        """State between steps. ``weights`` and ``states`` are dicts by tensor path, in numpy.

        The one reserved name in a returned state is ``"weight"``: the new latent weight.
        """
        return states

    def idle(self, states, step):
        """Whether ``update`` would change nothing now: then nobody prepares what it looks at."""
        return type(self).update is Method.update

    def bake(self, w, state):
        """What ``strip`` writes into the plain layer; by default what the forward pass saw."""
        return self.apply(w, state)


def straight_through(w, q):
    """Value ``q`` exactly, gradient of ``w`` (Bengio et al. 2013, arXiv:1308.3432).

    ``w + stop_gradient(q - w)`` is not ``q`` in float32: a ternary kernel came out with five levels.

    >>> from keras import ops
    >>> w = ops.array([0.3, -1.7])
    >>> [float(v) for v in straight_through(w, ops.sign(w))]
    [1.0, -1.0]
    """
    return ops.stop_gradient(q) + (w - ops.stop_gradient(w))
