"""tf_keras (Keras 2) models: pruning, clustering and QAT by tensorflow-model-optimization, and the way to Keras 3.

TFMOT accepts tf_keras models only, tfcompress's own methods Keras 3 models only. What TFMOT can't do raises an error
that names the layer and ``tfcompress.from_tf_keras``. Conversion to .tflite and all that follows is shared.
"""

import contextlib
import os
import re

from tfcompress.keras2 import Translator, check_graph, flat, is_tf_keras
from tfcompress.keras2_check import compare
from tfcompress.schedules import Constant, Linear, OneShot, Polynomial

FLAG = "TF_USE_LEGACY_KERAS"                             # TFMOT sets it when imported; children would inherit it


def prune(model, schedule, *, layers=None, every=1, include_head=False):
    """A copy of a tf_keras model whose kernels are pruned by magnitude while it trains.

    Args:
        model: tf_keras Functional or Sequential, built; nested models are opened.
        schedule: ``Constant``, ``OneShot``, ``Linear`` or ``Polynomial`` of ``tfcompress.schedules``: optimizer step ->
            sparsity, 0 <= sparsity < 1.
        layers: regular expression; only layers whose whole name matches. Default: all with kernels but the head.
        every: optimizer steps between masks; lowered where needed so that the schedule's end is hit.
        include_head: also prune the layers that make the model's outputs.

    Returns:
        tf_keras model; compile it and fit it with ``callbacks=tfcompress.legacy.callbacks(model)``, then ``strip``.

    Raises:
        ValueError: a layer TFMOT can't prune, a rule that matches nothing, a schedule TFMOT has not.
    """
    tfmot = _tfmot()
    arguments = {"pruning_schedule": _schedule(tfmot, schedule, every)}
    wrap = tfmot.sparsity.keras.prune_low_magnitude
    return _wrap(model, lambda layer: wrap(layer, **arguments), "prune", layers, include_head)


def cluster(model, clusters, *, layers=None, preserve_sparsity=False, include_head=False):
    """A copy of a trained tf_keras model whose kernels take at most ``clusters`` values (Han et al. 2015).

    Centroids start evenly spaced between the smallest and largest weight and train with the model. With
    ``preserve_sparsity`` zeros stay zero. Other arguments, result and errors as in ``prune``; no callback is needed.
    """
    if clusters < 2:
        raise ValueError(f"`clusters` is a number of values, at least 2. Received: clusters={clusters}.")
    tfmot = _tfmot()
    start = tfmot.clustering.keras.CentroidInitialization.LINEAR
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights
    return _wrap(model, lambda layer: cluster_weights(
        layer, number_of_clusters=clusters, cluster_centroids_init=start, preserve_sparsity=preserve_sparsity),
        "cluster", layers, include_head)


def quantize_aware(model, bits=8, *, keep_float=(), preserve=None):
    """A copy of a tf_keras model that trains as its int8 file will run.

    Args:
        model: tf_keras Functional or Sequential, without nested models.
        bits: 8; TFMOT has no other default scheme.
        keep_float: regular expressions of names of layers that stay float.
        preserve: None, "sparsity", "clusters" or "both": what of a pruned or clustered (and stripped) model to keep.

    Returns:
        tf_keras model; compile and fit it, then convert it as it is: the converter reads the ranges. (Under several
        workers or replicas TFMOT's ranges are not those of the whole batch, as tfcompress.quantize_aware's are.)

    Raises:
        ValueError: a layer TFMOT can't quantize, or ``bits`` other than 8.
    """
    if bits != 8:
        raise ValueError(f"TFMOT trains for 8 bits only. Received: bits={bits}. For other widths use "
                         "tfcompress.quantize_aware(tfcompress.from_tf_keras(model), bits=...).")
    tfmot = _tfmot()
    keras2 = _keras2()
    quantize = tfmot.quantization.keras
    check_graph(model)
    _check_plain(model)
    names = [layer.name for layer in model.layers]
    unused = [pattern for pattern in keep_float if not any(re.fullmatch(pattern, name) for name in names)]
    if unused:
        raise ValueError(f"keep_float={unused} matched no layer. Layers: {names}.")

    def annotate(layer):
        if hasattr(layer, "_nodes_by_depth"):
            raise ValueError(f"Layer {layer.name}:{type(layer)} is a model of its own inside '{model.name}'.")
        kept = any(re.fullmatch(pattern, layer.name) for pattern in keep_float)
        return layer if kept or isinstance(layer, keras2.layers.Lambda) else quantize.quantize_annotate_layer(layer)

    with _explained(model, "quantize"), quantize.quantize_scope():
        annotated = keras2.models.clone_model(model, clone_function=annotate)
        annotated.set_weights(model.get_weights())
        return quantize.quantize_apply(annotated, _scheme(tfmot, preserve))


def strip(model):
    """The plain tf_keras model behind ``prune`` and ``cluster``. A quantization-aware model comes back as it is."""
    check_graph(model)
    kinds = {type(layer).__name__ for layer in flat(model)}
    if "PruneLowMagnitude" in kinds:
        model = _tfmot().sparsity.keras.strip_pruning(model)
    if any(kind.startswith("ClusterWeights") for kind in kinds):
        model = _tfmot().clustering.keras.strip_clustering(model)
    return model


def is_aware(model):
    """Whether ``model`` is a tf_keras model made by ``quantize_aware``: TFLiteConverter alone can convert it."""
    return is_tf_keras(model) and any(type(layer).__name__.startswith("QuantizeWrapper") for layer in flat(model))


def callbacks(model):
    """The callbacks ``fit`` needs for ``model``: TFMOT's step counter where it is pruned, else none."""
    pruned = any(type(layer).__name__ == "PruneLowMagnitude" for layer in flat(model))
    return [_tfmot().sparsity.keras.UpdatePruningStep()] if pruned else []


def load(path, custom_objects=None):
    """A tf_keras model from ``.h5``, ``.keras`` or a Keras SavedModel: files of Keras 2 and of TFMOT among them.

    Python code in a file (a ``Lambda`` of a ``lambda``) is not run: an error says so.
    """
    import tensorflow as tf

    keras2, tfmot = _keras2(), _tfmot()
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    if not os.path.exists(path):
        raise FileNotFoundError(f"No such model: {os.path.abspath(path)}")
    scopes = (tfmot.sparsity.keras.prune_scope(), tfmot.clustering.keras.cluster_scope(),
              tfmot.quantization.keras.quantize_scope(), SafeModeScope(True))
    try:
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            known = {"relu6": tf.nn.relu6, **(custom_objects or {})}
            return keras2.models.load_model(path, custom_objects=known, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(
            f"tf_keras can't load {os.fspath(path)!r}: {str(error).splitlines()[0]} If it holds classes or functions "
            "of your own, or a Lambda you trust, load it yourself with tf_keras and pass the model.") from error


def from_tf_keras(model, custom_objects=None, *, check=True):
    """A tf_keras (Keras 2) model as a Keras 3 model with the same graph, names, weights and outputs.

    Args:
        model: tf_keras Functional or Sequential, or the path of its file (``load``). A "/" in names becomes "_".
        custom_objects: ``{class name: Keras 3 layer class}`` for layers of your own.
        check: run both on random input (integers for embeddings) and compare: 1e-5 of the largest output, 1e-2 in half
            precision. The compile state (optimizer, loss) is not carried over.

    Raises:
        ValueError: naming the layer that has no counterpart, or the first one whose output differs.
    """
    if isinstance(model, str | os.PathLike):
        model = load(model)
    if not is_tf_keras(model):
        raise ValueError(f"Expected a tf_keras (Keras 2) model. Received: {type(model).__module__}."
                         f"{type(model).__name__}, which needs no translation.")
    check_graph(model)
    _check_plain(model)
    translator = Translator(custom_objects)
    new = translator.model(model, outer=True)
    translator.copy_weights()
    if check:
        compare(model, new, translator.steps)
    return new


# ---- TFMOT ------------------------------------------------------------------------------------------------------
def _keras2():
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError("tf_keras models need the package tf_keras: pip install tf_keras") from error
    return tf_keras


def _tfmot():
    """tensorflow-model-optimization, imported without changing what ``tf.keras`` is here or in child processes."""
    import tensorflow as tf

    _ = tf.keras.Model                                   # resolves the lazy tf.keras before TFMOT sets the flag
    before = os.environ.get(FLAG)
    try:
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise ImportError("This needs TFMOT: pip install tensorflow-model-optimization") from error
    finally:
        os.environ.pop(FLAG, None)
        if before is not None:
            os.environ[FLAG] = before
    return tfmot


def _schedule(tfmot, schedule, every):
    sparsity = tfmot.sparsity.keras
    if isinstance(schedule, OneShot):
        return sparsity.ConstantSparsity(schedule.target, schedule.at, schedule.at, frequency=1)
    if isinstance(schedule, Constant):
        end = -1 if schedule.end is None else schedule.end
        return sparsity.ConstantSparsity(schedule.target, schedule.begin, end, frequency=every)
    if isinstance(schedule, Linear | Polynomial):
        steps = schedule.end - schedule.begin
        every = max(n for n in range(1, min(every, max(steps, 1)) + 1) if steps % n == 0)
        power = schedule.power if isinstance(schedule, Polynomial) else 1
        return sparsity.PolynomialDecay(
            schedule.initial, schedule.target, schedule.begin, schedule.end, power=power, frequency=every)
    raise ValueError(f"TFMOT has the schedules Constant, OneShot, Linear and Polynomial. Received: {schedule!r}. For "
                     "any other: tfcompress.compress(tfcompress.from_tf_keras(model), Prune(schedule)).")


def _scheme(tfmot, preserve):
    experimental = tfmot.experimental.combine
    if preserve is None:
        from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
            default_8bit_quantize_scheme as default,
        )
        return default.Default8BitQuantizeScheme()
    schemes = {"sparsity": experimental.Default8BitPrunePreserveQuantizeScheme,
               "clusters": experimental.Default8BitClusterPreserveQuantizeScheme,
               "both": lambda: experimental.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)}
    if preserve not in schemes:
        raise ValueError(f"Unknown preserve={preserve!r}. Known: {list(schemes)}.")
    return schemes[preserve]()


def _wrap(model, wrap, verb, pattern, include_head):
    """A copy of ``model`` with ``wrap(layer)`` in place of each chosen layer."""
    keras2 = _keras2()
    check_graph(model)
    _check_plain(model)
    copy = keras2.models.clone_model(model)
    copy.set_weights(model.get_weights())
    known = [layer.name for layer in flat(copy) if _has_kernel(layer)]
    spared = set() if include_head or pattern else _head(copy)
    chosen = {name for name in known if re.fullmatch(pattern or ".*", name) and name not in spared}
    if not chosen:
        raise ValueError(f"Nothing to {verb}: layers={pattern!r} leaves none of {known}. "
                         "The head needs include_head=True.")

    def replace(layer):
        if hasattr(layer, "layers") and hasattr(layer, "_nodes_by_depth"):
            return keras2.models.clone_model(layer, clone_function=replace)
        if layer.name not in chosen:
            return layer
        with _explained(layer, verb):
            return wrap(layer)

    return keras2.models.clone_model(copy, clone_function=replace)


@contextlib.contextmanager
def _explained(owner, verb):
    """TFMOT's many errors as one of ours that names the layer and the way out."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        found = re.search(r"Layer (\S+?):<class|calling layer ['\"](\S+?)['\"]", str(error))
        layer = (found.group(1) or found.group(2)) if found else owner.name
        leave = "keep_float=(name,)" if verb == "quantize" else "layers=regex"
        raise ValueError(
            f"tensorflow-model-optimization can't {verb} '{layer}': {str(error).splitlines()[0]} Leave it out with "
            f"{leave}, or use tfcompress's own methods on tfcompress.from_tf_keras(model).") from error


def _check_plain(model):
    wrapped = [layer.name for layer in flat(model)
               if type(layer).__name__.startswith(("PruneLowMagnitude", "ClusterWeights", "Quantize"))]
    if wrapped:
        raise ValueError(f"Layers {wrapped[:5]} are wrapped by TFMOT. Call tfcompress.legacy.strip(model) first; a "
                         "quantization-aware model has no plain form: start from the float model.")


def _has_kernel(layer):
    names = [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
    return any(name in ("kernel", "recurrent_kernel", "pointwise_kernel", "embeddings") for name in names)


def _head(model):
    """Names of the layers with kernels that make the outputs, no other kernel behind them."""
    found, seen = set(), set()
    stack = [tensor._keras_history.layer for tensor in model.outputs]
    while stack:
        layer = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if hasattr(layer, "_nodes_by_depth"):
            found |= _head(layer)
        elif _has_kernel(layer):
            found.add(layer.name)
        else:
            stack += [tensor._keras_history.layer for node in layer._inbound_nodes for tensor in node.keras_inputs]
    return found
