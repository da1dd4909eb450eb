"""Copies of layers: with their weights, or of another config; also of those that Keras can't read back from a file."""

import inspect

import keras

from tfcompress.wrapper import read


def from_own_config(layer, config=None, kind=None):
    """A fresh, unbuilt layer of ``config`` (default: the layer's own). Its own functions need not be known to Keras."""
    try:
        config = layer.get_config() if config is None else config
        if type(layer) is keras.layers.Lambda:           # Keras makes none of bytecode, and this needs none
            config = {name: config[name] for name in ("name", "trainable", "dtype")}
            return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, layer.arguments, **config)
        with keras.saving.custom_object_scope(own_objects(layer)):
            fresh = (kind or type(layer)).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"Layer '{layer.name}' ({type(layer).__name__}) can't be copied by its config: "
                         f"{str(error).splitlines()[0][:200]} Give it a get_config that its __init__ understands, name "
                         "its functions, or register what it holds with Keras.") from error
    for old, new in _parts(layer, fresh):
        for name, value in _functions(old):              # Keras's own of that name goes first
            if inspect.isfunction(vars(new).get(name)):
                setattr(new, name, value)
    return fresh


def _functions(layer):
    """``[(attribute, function)]`` that were given to the layer; Keras keeps wraps of its methods there, too."""
    return [(name, value) for name, value in vars(layer).items()
            if inspect.isfunction(value) and not hasattr(type(layer), name)]


def _parts(layer, copy):
    """Pairs of a layer, and of those inside it, with their copies."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return list(zip(layer._flatten_layers(), copy._flatten_layers(), strict=False))


def own_objects(layer):
    """``{name: function or class}`` of what ``layer`` holds that is not Keras's own, e.g. an activation."""
    parts = list(layer._flatten_layers()) if isinstance(layer, keras.layers.Layer) else []
    held = [value for part in parts for value in vars(part).values()] + parts
    found = {value.__name__: value for part in parts for _, value in _functions(part)}
    kinds = (keras.Regularizer, keras.Initializer, keras.constraints.Constraint, keras.layers.Layer)
    found |= {type(value).__name__: type(value) for value in held if isinstance(value, kinds)}
    return {name: value for name, value in found.items()
            if not value.__module__.startswith("keras.") or value.__module__.startswith("keras.src.ops")}


def copy_layer(layer, kind=None):
    """A copy of ``layer`` (as class ``kind``) with its weights, seeds included, built as the original was."""
    copy = from_own_config(layer, kind=kind)
    if not isinstance(layer, keras.layers.Layer):        # an operation such as `x + y`: nothing to build or copy
        return copy
    if layer.built and not copy.built:
        config = layer.get_build_config()
        if config is not None:
            copy.build_from_config(config)
            copy.built = True
    if len(copy.variables) != len(layer.variables) and layer._inbound_nodes:     # built by its first call alone
        called = layer._inbound_nodes[0].arguments
        copy(*keras.tree.map_structure(_anew, called.args), **keras.tree.map_structure(_anew, called.kwargs))
        copy._inbound_nodes.clear()
    for old, new in _parts(layer, copy)[1:]:
        new.name = old.name                              # a layer made inside without a name counts on
    if len(copy.variables) == len(layer.variables):      # else it is built when the graph calls it
        assign_all(layer, copy)
    return copy


def _anew(value):
    """A tensor like ``value`` that belongs to no graph."""
    return keras.KerasTensor(value.shape, value.dtype) if isinstance(value, keras.KerasTensor) else value


def assign_all(layer, copy):
    """Give ``copy`` the variables of ``layer``."""
    for old, new in zip(layer.variables, copy.variables, strict=True):
        new.assign(read(old))
    finalize(copy)


def finalize(layer):
    """After its variables were assigned: a Normalization computes with tensors made of them."""
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.Normalization) and part.built and part.input_mean is None:
            part.finalize_state()
