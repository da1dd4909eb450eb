"""The one wrapper, and the only file that substitutes a Keras variable."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfcompress.chain import Chain
from tfcompress.layout import View, kernels, tensors, vectors
from tfcompress.method import serializable

_END = 2**62  # a step behind the end of every schedule
pack, unpack = keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object


def read(variable):
    """The value of a Keras variable as a numpy array, also under ``tf.distribute``."""
    value = variable.value
    return ops.convert_to_numpy(value.read_value() if hasattr(value, "read_value") else value)


@dataclass(frozen=True)
class Slot:
    """One compressed tensor: its latent variable, canonical view and state. No dict, so that Keras doesn't track it."""

    latent: keras.Variable
    view: View
    state: tuple                                         # of (name, variable)

    def tensor(self):
        """The latent weight, a float32 tensor in the canonical view."""
        return self.view.to(ops.cast(self.latent.value, "float32"), ops)

    def values(self):
        """``{name: tensor}`` of the state."""
        return {name: variable.value for name, variable in self.state}


class _Substitute(keras.StatelessScope):
    """Inside, the mapped variables read as other tensors; every update made inside is replayed on leaving.

    A plain ``StatelessScope`` drops updates silently: moving means stay 0, dropout draws the same mask each step.
    """

    def __init__(self, state_mapping):
        super().__init__(state_mapping, collect_losses=True, initialize_variables=False)
        self.updated = {}

    def add_update(self, update):
        self.updated[id(update[0])] = update[0]
        super().add_update(update)

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value

    def replay(self, layer):
        """Assign what was updated inside, and hand ``layer`` the losses that were added inside."""
        for key, variable in self.updated.items():
            variable.assign(self.state_mapping[key])
        for loss in self.losses:
            layer.add_loss(loss)


@serializable
class Compressed(keras.layers.Wrapper):
    """A layer some of whose tensors pass through a ``Method`` before the layer sees them.

    Args:
        layer: a Keras layer (its config is enough; weights are copied by ``compress``).
        methods: ``{tensor key: Method}``, keys as in ``layout.tensors(layer)``, e.g. ``{"kernel": Uniform(8)}``.

    The original ("latent") variables stay where they were, inside ``layer``, and keep training. State of the methods is
    float32 whatever the policy: sums over a kernel overflow in float16.

    Attributes:
        strippable: whether the plain layer alone says what this one does; not so for the integer kernels of QAT.
        visited: whether a ``CompressionCallback`` came by; not saved.
    """

    strippable = True
    visited = False

    def __init__(self, layer, methods, **kwargs):
        kwargs = {"name": layer.name, "dtype": "float32", "trainable": layer.trainable, **kwargs}
        super().__init__(layer, **kwargs)
        self.autocast = False                          # the inner layer casts for itself
        self.methods = dict(methods)
        self.supports_masking = layer.supports_masking

    # ---- building -----------------------------------------------------------------------------------------------
    def get_build_config(self):
        return {"layer": self.layer.get_build_config()}

    def build_from_config(self, config):
        if not self.layer.built and config.get("layer") is not None:
            self.layer.build_from_config(config["layer"])
        self.layer.built = True
        self._make_state()
        self.built = True

    def build(self, input_shape=None):
        super().build(input_shape)
        self._make_state()

    def _make_state(self):
        found = tensors(self.layer)
        missing = [key for key in self.methods if key not in found]
        if missing:
            raise ValueError(f"Layer '{self.name}' has no tensors {missing}. It has: {list(kernels(self.layer))}, "
                             f"and one number a channel: {list(vectors(self.layer))}.")
        self.slots = {}
        for key, method in self.methods.items():
            latent, view = found[key]
            initial = method.init(view.to(read(latent), np))
            state = tuple((name, self._add_state(key, name, value, name in method.trainable))
                          for name, value in initial.items())
            self.slots[key] = Slot(latent, view, state)
            self._add_penalty(key, method)

    def _add_state(self, key, name, value, trainable):
        value = np.asarray(value, "float32")
        return self.add_weight(name=f"{key}_{name}".replace("/", "_").replace(".", "_"), shape=value.shape,
                               dtype="float32", trainable=trainable, autocast=False,
                               initializer=lambda shape, dtype=None: ops.convert_to_tensor(value, dtype))

    def _add_penalty(self, key, method):
        """Penalties are regularizers of the latent variable: a shared layer, called twice, adds its own once."""
        slot = self.slots[key]
        if method.penalty(slot.tensor(), slot.values()) is None:
            return
        own = slot.latent.regularizer

        def regularizer(_):
            penalty = method.penalty(slot.tensor(), slot.values())
            return penalty if own is None else penalty + own(slot.latent)

        slot.latent.regularizer = regularizer

    # ---- values -------------------------------------------------------------------------------------------------
    def latent(self, key):
        """The latent weight as numpy, canonical view."""
        return self.slots[key].view.to(read(self.slots[key].latent).astype("float32"), np)

    def values(self, key):
        """The state of one tensor's method as ``{name: numpy array}``."""
        return {name: read(variable) for name, variable in self.slots[key].state}

    def effective(self, key):
        """What the layer sees in place of its variable: a tensor in the layer's own layout."""
        slot = self.slots[key]
        return slot.view.back(self.methods[key].apply(slot.tensor(), slot.values()), ops)

    def baked(self, key, canonical=False):
        """What ``strip`` writes, as numpy, in the layer's own layout (or the canonical view)."""
        w = ops.convert_to_numpy(self.methods[key].bake(self.latent(key), self.values(key)))
        w = w + np.zeros((), w.dtype)                    # no -0 where a mask was: one zero packs in fewer bits
        return w if canonical else self.slots[key].view.back(w, np)

    def neglected(self, key):
        """Whether a method that works between steps never did: by its state, where that starts alike in any weights."""
        if self.visited:
            return False
        method, w, now = self.methods[key], self.latent(key), self.values(key)
        for i, part in enumerate(method.methods if isinstance(method, Chain) else (method,)):
            own = Chain.part(i, now) if isinstance(method, Chain) else now
            if part.idle({key: own}, _END):
                continue
            fresh, other = part.init(w), part.init(1 - 2 * w)
            fixed = [name for name in fresh if name not in part.trainable and np.array_equal(fresh[name], other[name])]
            if fixed and all(np.array_equal(own[name], np.asarray(fresh[name], "float32")) for name in fixed):
                return True
        return False

    def write(self, key, state):
        """Store new state; the name ``"weight"`` is the latent weight itself (canonical view)."""
        slot, variables = self.slots[key], dict(self.slots[key].state)
        for name, value in state.items():
            if name == "weight":
                slot.latent.assign(slot.view.back(np.asarray(value), np))
            else:
                variables[name].assign(value)

    # ---- behaving as the layer ------------------------------------------------------------------------------------
    def call(self, *args, **kwargs):
        return self.call_with([(self.slots[key].latent, self.effective(key)) for key in self.methods], *args, **kwargs)

    def call_with(self, mapping, *args, **kwargs):
        """Call the inner layer while it reads other tensors for its variables: ``mapping = [(variable, tensor)]``."""
        with _Substitute(mapping) as scope:
            outputs = self.layer(*args, **kwargs)
        scope.replay(self)
        return outputs

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    # ---- saving ---------------------------------------------------------------------------------------------------
    def get_config(self):
        config = super().get_config()
        config["methods"] = {key: pack(method) for key, method in self.methods.items()}
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        layer = unpack(config.pop("layer"), custom_objects=custom_objects)
        methods = {key: unpack(method, custom_objects=custom_objects) for key, method in config.pop("methods").items()}
        return cls(layer, methods, **config)
