"""The canonical view of a kernel: output channels on the last axis.

The channel axis of a Keras kernel is not always last: depthwise kernels are ``(kh, kw, cin, multiplier)``, transpose
convolutions ``(kh, kw, out, in)``, attention projections have two output axes. Methods never have to know.
"""

from dataclasses import dataclass

import keras
import numpy as np

VECTOR_NAMES = ("bias", "gamma", "beta")
KERNEL_NAMES = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel", "embeddings", "input_factor",
                "recurrent_factor")
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


@dataclass(frozen=True)
class View:
    """A transpose and a reshape, and the way back. ``xp`` is ``numpy`` or ``keras.ops``.

    >>> import numpy as np
    >>> view = View((2, 3), order=(1, 0), canonical=(3, 2))
    >>> view.to(np.array([[1, 2, 3], [4, 5, 6]]), np).tolist()
    [[1, 4], [2, 5], [3, 6]]
    >>> view.back(view.to(np.arange(6).reshape(2, 3), np), np).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """

    shape: tuple
    order: tuple
    canonical: tuple

    def to(self, w, xp):
        """From the layer's layout to the canonical one."""
        w = w if self.order == tuple(range(len(self.order))) else xp.transpose(w, self.order)
        return w if tuple(w.shape) == self.canonical else xp.reshape(w, self.canonical)

    def back(self, w, xp):
        """From the canonical layout to the layer's."""
        moved = tuple(self.shape[i] for i in self.order)
        w = w if tuple(w.shape) == moved else xp.reshape(w, moved)
        if self.order == tuple(range(len(self.order))):
            return w
        return xp.transpose(w, tuple(int(i) for i in np.argsort(self.order)))


def view_of(owner, variable):
    """The canonical ``View`` of ``variable``, a kernel of layer ``owner``."""
    shape = tuple(variable.shape)
    ndim = len(shape)
    straight = tuple(range(ndim))
    depthwise = variable.name == "depthwise_kernel" or isinstance(owner, DEPTHWISE)
    if depthwise:
        return View(shape, straight, shape[:-2] + (shape[-2] * shape[-1],))
    if isinstance(owner, TRANSPOSED):
        order = straight[:-2] + (ndim - 1, ndim - 2)
        return View(shape, order, tuple(shape[i] for i in order))
    if isinstance(owner, keras.layers.EinsumDense):
        left, result = owner.equation.split("->")
        letters = left.split(",")[1]
        outputs = tuple(i for i, letter in enumerate(letters) if letter in result)
        inputs = tuple(i for i in straight if i not in outputs)
        order = inputs + outputs
        channels = int(np.prod([shape[i] for i in outputs])) if outputs else 1
        return View(shape, order, tuple(shape[i] for i in inputs) + (channels,))
    return View(shape, straight, shape)


def kernels(layer):
    """``{key: (variable, View)}`` of the tensors of ``layer`` that can be compressed, sub-layers included.

    The key is the chain of sub-layer names and the variable's name: ``"kernel"``, ``"lstm_cell/recurrent_kernel"``.
    A variable reached twice is listed once; two sub-layers of one name are told apart by a number.
    """
    def view(owner, variable):
        is_kernel = variable.name in KERNEL_NAMES and len(variable.shape) >= 2
        return view_of(owner, variable) if is_kernel else None

    return _walk(layer, view)


def vectors(layer):
    """``{key: (variable, View)}`` of what else makes an output channel: biases, and a BatchNormalization's gamma, beta.

    A filter is gone only when its entries there are zero too: ``relu(beta)`` is not. Their last canonical axis counts
    the same channels as the kernel's of the same owner; a bias that doesn't (a scalar, one a position) is left out.

    >>> import keras
    >>> layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
    >>> layer.build((None, 8, 8, 3))
    >>> {key: view.canonical for key, (_, view) in vectors(layer).items()}
    {'bias': (6,)}
    """
    return _walk(layer, _vector_view)


def _vector_view(owner, variable):
    shape = tuple(variable.shape)
    norm = isinstance(owner, keras.layers.BatchNormalization)
    if not shape or variable.name not in (("gamma", "beta") if norm else ("bias",)):
        return None
    channels = {view_of(owner, v).canonical[-1] for v in owner.variables if v.name in KERNEL_NAMES and len(v.shape) > 1}
    straight = tuple(range(len(shape)))
    if norm or shape[-1] in channels:
        return View(shape, straight, shape)
    size = int(np.prod(shape))
    return View(shape, straight, (size,)) if size in channels else None


def tensors(layer):
    """``kernels`` and ``vectors`` of ``layer`` in one dict."""
    return {**kernels(layer), **vectors(layer)}


def _walk(layer, view):
    """``{key: (variable, View)}`` of the variables of ``layer`` and its sub-layers for which ``view`` is not None."""
    found, seen = {}, set()

    def walk(owner, prefix):
        children = owner._flatten_layers(include_self=False, recursive=False)
        inherited = {id(v) for child in children for v in child.variables}
        for variable in owner.variables:
            if id(variable) in inherited or id(variable) in seen:
                continue
            own = view(owner, variable)
            if own is not None:
                seen.add(id(variable))
                key, number = prefix + variable.name, 1
                while key in found:
                    number += 1
                    key = f"{prefix}{variable.name}_{number}"
                found[key] = (variable, own)
        for child in children:
            walk(child, f"{prefix}{child.name}/")

    walk(layer, "")
    return found
