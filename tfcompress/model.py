"""In goes a Keras model, out comes a Keras model: ``compress`` before training, ``strip`` after it."""

import re
import warnings
from collections.abc import Iterable

import keras

from tfcompress.batch_norm import fused, unfused
from tfcompress.chain import Chain
from tfcompress.copies import assign_all, copy_layer
from tfcompress.layout import kernels, tensors, vectors
from tfcompress.method import Method
from tfcompress.wrapper import Compressed


def is_graph(model):
    """Whether ``model`` is Functional or Sequential: its layers and their connections are known."""
    return isinstance(model, keras.Sequential) or any(c.__name__ == "Functional" for c in type(model).__mro__)


def check_model(model):
    """Raise one clear error for anything that is not a built Keras 3 Functional or Sequential model."""
    if type(model).__module__.startswith("tf_keras"):
        raise ValueError(
            f"Received a tf_keras (Keras 2) model '{model.name}'. Use tfcompress.legacy (prune, quantize_aware, "
            "cluster, strip), or bring it over with tfcompress.from_tf_keras(model).")
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a Keras model. Received: {type(model).__name__}.")
    if isinstance(getattr(model, "student", None), keras.Model):
        raise ValueError(f"Received the {type(model).__name__} '{model.name}'. Pass its student: distiller.student.")
    if not is_graph(model):
        raise ValueError(
            f"Model '{model.name}' is subclassed ({type(model).__name__}): its graph is not known, so its layers can't "
            "be replaced. Build it with the functional API, e.g. x = keras.Input(...); keras.Model(x, layers(x)).")
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built. Give it an Input, or call model.build(shape) first.")


def check_plain(model):
    """``check_model``, and a ValueError for a model that still trains compressed or quantization-aware layers."""
    check_model(model)
    wrapped = [path for path, _, _ in compressed_tensors(model)]
    if wrapped:
        raise ValueError(f"Model '{model.name}' still trains compressed layers: {wrapped[:5]}. Call strip(model) "
                         "first. Of a quantization-aware model give the float one: filters are removed and kernels "
                         "factorised before quantize_aware, not after.")


def leaves(model, prefix=""):
    """``[(path, layer)]`` of a model's layers, nested models opened, each layer once.

    The path is the chain of owners, ``"encoder/dense"``: ``layer.path`` alone collides between sub-models.
    """
    found, seen = [], set()

    def walk(owner, prefix):
        for layer in owner.layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                walk(layer, f"{prefix}{layer.name}/")
            else:
                found.append((prefix + layer.name, layer))

    walk(model, prefix)
    return found


def compressed_tensors(model):
    """``[(tensor path, Compressed layer, key)]`` of a compressed model, in layer order."""
    return [(f"{path}/{key}", layer, key) for path, layer in leaves(model) if isinstance(layer, Compressed)
            for key in layer.methods]


def head(model):
    """The ids of the layers whose kernels make the model's outputs: no other kernel comes behind them.

    Pruning filters there would remove classes, so ``compress`` leaves them out unless a rule names them.
    """
    found = set()
    if isinstance(model, keras.Sequential):
        ends = [model.layers[-1]] if model.layers else []
    else:
        ends = [t._keras_history.operation for t in keras.tree.flatten(model.outputs)]
    seen, stack = set(), list(ends)
    while stack:
        layer = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model) and is_graph(layer):
            found |= head(layer)
        elif isinstance(layer, keras.layers.Layer) and kernels(layer):
            found.add(id(layer))
        elif isinstance(model, keras.Sequential):
            index = [id(x) for x in model.layers].index(id(layer))
            stack.extend(model.layers[index - 1:index] if index else [])
        else:
            own = {id(op) for op in model.operations}
            for node in layer._inbound_nodes:
                stack.extend(t._keras_history.operation for t in node.input_tensors
                             if id(t._keras_history.operation) in own)
    return found


def _plain(layer):
    return layer.layer if isinstance(layer, Compressed) else layer


def _plan(model, rules, include_head):
    """``{id(layer): {key: new Method}}``. The first rule that matches a layer's or tensor's path wins."""
    explicit = not isinstance(rules, Method)
    rules = _checked(rules) if explicit else [(".*", rules)]
    spared = set() if explicit or include_head else head(model)
    _check_needs(model, rules)
    plan, used, known = {}, set(), []
    for path, layer in leaves(model):
        found = kernels(_plain(layer))
        known += [path] if found else []
        for key in [*found, *vectors(_plain(layer))]:
            for i, (pattern, method) in enumerate(rules):
                if re.fullmatch(pattern, path) or re.fullmatch(pattern, f"{path}/{key}"):
                    method = method if key in found else _structured_part(method)
                    if method is not None:
                        used.add(i)
                        if id(layer) not in spared:
                            plan.setdefault(id(layer), {})[key] = method
                    break
    unused = [pattern for i, (pattern, _) in enumerate(rules) if i not in used]
    if unused:
        raise ValueError(f"These rules matched no layer: {unused}. Layers that can be compressed: {known}.")
    if not plan:
        raise ValueError(f"Nothing is left to compress: the only layers with kernels are the head, {known}. "
                         "Pass include_head=True, or a rule that names them.")
    return plan


def _checked(rules):
    expected = "`rules` is a Method, or a list of (regex on the layer's path, Method)."
    found = list(rules) if isinstance(rules, Iterable) else []
    if not found:
        raise ValueError(f"{expected} Received: {rules!r}.")
    for rule in found:
        if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and isinstance(rule[1], Method)):
            raise ValueError(f"{expected} Received the rule: {rule!r}.")
        try:
            re.compile(rule[0])
        except (re.error, TypeError) as error:
            raise ValueError(f"{expected} Received the regex: {rule[0]!r} ({error}).") from error
    return found


def _check_needs(model, rules):
    needy = [method for _, method in rules if method.needs_model]
    if needy and not all(layer.strippable for _, layer, _ in compressed_tensors(model)):
        raise ValueError(f"Model '{model.name}' is quantization-aware, and {needy[0]} has to look at a plain network. "
                         "Prune first: quantize_aware(strip(pruned model)).")


def _structured_part(method):
    """What of ``method`` a bias, gamma or beta gets: a filter goes with them, but they are not quantized."""
    parts = [m for m in (method.methods if isinstance(method, Chain) else [method]) if m.structured]
    return Chain(parts) if len(parts) > 1 else parts[0] if parts else None


def compress(model, rules, *, include_head=False):
    """A copy of ``model`` whose kernels pass through methods while it trains.

    Args:
        model: a built Functional or Sequential model; its weights are copied. It may be compressed already: then the
            new method is chained behind the old one, whose state is kept.
        rules: a ``Method`` for every kernel but the head's, or ``[(regex, Method), ...]`` matched in full against the
            path of a layer (``"encoder/conv1"``) or of a tensor (``"lstm/lstm_cell/recurrent_kernel"``); the first
            match wins. A method that takes whole filters also gets their biases, and the gamma and beta of the batch
            normalizations that the rules match.
        include_head: with a plain ``Method``, also compress the layers that make the model's outputs.

    Returns:
        A Keras model with the same inputs, outputs and numbers of units. Compile and fit it with a
        ``CompressionCallback``, then ``strip`` it. An optimizer with weight decay pulls learned scales and centroids
        to 0 like weights: ``optimizer.exclude_from_weight_decay(var_names=[...])`` before ``fit``, with their names
        from ``model.trainable_variables``. A ``kernel_constraint`` acts on the weights that train, before the method.

    Raises:
        ValueError: no rules, a bad regular expression, a rule that matches nothing; a subclassed, unbuilt or tf_keras
            model.

    >>> import keras
    >>> from tfcompress import Polynomial, Prune, compress, strip
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2, name="out")])
    >>> small = compress(model, Prune(Polynomial(0.75, begin=0, end=100)))
    >>> [type(layer).__name__ for layer in small.layers]
    ['Compressed', 'Dense']
    >>> compress(model, [("cnv.*", Prune(Polynomial(0.75, 0, 100)))])
    Traceback (most recent call last):
    ValueError: These rules matched no layer: ['cnv.*']. Layers that can be compressed: ['hidden', 'out'].
    """
    check_model(model)
    plan = _plan(model, rules, include_head)

    def wrap(layer):
        if id(layer) not in plan and not isinstance(layer, Compressed):
            return copy_layer(layer, fused(layer))
        inner = copy_layer(_plain(layer), fused(_plain(layer)))
        old = layer.methods if isinstance(layer, Compressed) else {}
        methods = {key: Chain((old[key], method)) if key in old else method
                   for key, method in plan.get(id(layer), {}).items()}
        methods = {**old, **methods}
        new = _rebuild(layer, inner, methods)
        for key in old:
            _carry(layer, new, key)
        return new

    return clone(model, wrap)


def _rebuild(layer, inner, methods):
    """``Compressed(inner, methods)``, of the same class and options as ``layer`` where that is one already."""
    if isinstance(layer, Compressed):
        options = {name: value for name, value in layer.get_config().items() if name not in ("layer", "methods")}
        new = type(layer)(inner, methods, **options)
    else:
        new = Compressed(inner, methods)
    new.build_from_config({"layer": None} if not isinstance(layer, Compressed) else layer.get_build_config())
    return new


def _carry(layer, new, key):
    """State of the methods that were there already; what came new starts from the weights they leave."""
    was, now = layer.methods[key], new.methods[key]
    values = layer.values(key)
    if was != now:
        count = len(was.methods) if isinstance(was, Chain) else 1
        values = values if count > 1 else {f"0.{name}": value for name, value in values.items()}
        tail = Chain(now.methods[count:]).init(layer.baked(key, canonical=True))
        values |= {f"{int(i) + count}.{name}": v for i, name, v in ((*k.split(".", 1), v) for k, v in tail.items())}
    new.write(key, values)


def _like(tensor):
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)


def clone(model, copy):
    """A copy of a Functional or Sequential model, nested models opened, each layer replaced by ``copy(layer)`` once."""
    inputs = None                                        # clone_model renames the inputs, unless it is given some
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.map_structure(_like, model.input)
    compiled, model.compiled = model.compiled, False     # the old optimizer belongs to the old variables
    try:
        new = keras.models.clone_model(model, input_tensors=inputs, clone_function=copy, recursive=True)
    finally:
        model.compiled = compiled
    refresh(model, new)                                  # some layers were built only now, when the graph called them
    return new


def refresh(model, copy):
    """Bring the plain layers of ``copy``, a ``clone`` of ``model``, up to date: variables, and compressed weights."""
    for (_, old), (_, layer) in zip(leaves(model), leaves(copy), strict=True):
        if not isinstance(layer, Compressed):
            assign_all(_plain(old), layer)
            if isinstance(old, Compressed):
                bake(old, layer)


def bake(old, layer):
    """Write the compressed weights of ``old`` (``Compressed``) into the plain ``layer``."""
    found = tensors(layer)
    for key in old.methods:
        found[key][0].assign(old.baked(key))


def strip(model):
    """A plain Keras model holding the compressed weights: no wrapper, no state, nothing of tfcompress left.

    Warns where a method that works between steps was never run, i.e. the callback was forgotten.
    """
    check_model(model)
    if any(not layer.strippable for _, layer, _ in compressed_tensors(model)):
        raise ValueError(f"Model '{model.name}' is quantization-aware: its rounding is part of it. "
                         "Pass it to tfcompress.convert(model, 'int8') as it is.")
    idle = [path for path, layer, key in compressed_tensors(model) if layer.neglected(key)]
    if idle:
        warnings.warn(f"Nothing was done to {idle} between steps, where their methods work. "
                      "Pass callbacks=[tfcompress.CompressionCallback()] to fit.", stacklevel=2)
    return plain_twin(model)


def plain_twin(model):
    """``model`` without wrappers, as it is now. ``refresh(model, twin)`` keeps it up to date."""
    return clone(model, lambda layer: copy_layer(_plain(layer), unfused(_plain(layer))))
