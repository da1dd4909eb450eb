"""What coverage.py asks of each family of keras.applications: the models, and one function a column of its table.

The weights are random, so nothing here says how accurate a family is after compression. Files are compared with the
Keras model all the same: with float kernels for float32 and float16, with kernels rounded to the file's bits for the
others, so that what is left is the rounding of activations.
"""

import math

import numpy as np

SIZE, CLASSES, CALIBRATION, TEST = 96, 10, 48, 16
PREPARING = ("MobileNetV3", "EfficientNet", "ConvNeXt")  # these take pixels 0..255; the others -1..1
BITS = {"float32": None, "float16": None, "int4": 4}  # of the kernels; else 8
LEAST_DB = {"float32": 60, "float16": 30, "dynamic": 10, "int8": 5, "int16x8": 25, "int4": 0}  # a wrong file has -3


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


# ---- the model and its data -----------------------------------------------------------------------------------------
def images(family, count, seed=0):
    """Coloured blobs: each image has its own mean, contrast and colours, else random nets can't tell them apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(count, 4, 4, 3)) * rng.uniform(0.2, 1, (count, 1, 1, 3))
    fine = np.kron(coarse, np.ones((1, SIZE // 4, SIZE // 4, 1))) + rng.normal(0, 0.05, (count, SIZE, SIZE, 3))
    x = np.clip(fine, 0, 1).astype("float32")
    return 255 * x if family.startswith(PREPARING) else 2 * x - 1


def shown(family):
    """The images that answers are compared on: of those that ranges come from, as what lies outside is cut off."""
    return images(family, CALIBRATION)[:TEST]


def build(family):
    """The model with He-normal kernels, random scales and biases, and batch statistics of 64 images.

    As Keras makes them, signals fade to nothing in 50 layers, all images get one answer and any file would agree.
    """
    import keras

    from tfcompress.layout import kernels
    from tfcompress.model import leaves

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = getattr(keras.applications, family)(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
    for _, layer in leaves(model):
        lift = 1.0 if isinstance(layer, keras.layers.BatchNormalization) else 0.0
        for variable in layer.trainable_variables:
            ranges = {"gamma": (0.4, 0.8), "beta": (lift - 0.5, lift + 0.5), "bias": (-0.1, 0.1)}
            low, high = ranges.get(variable.name, (0.2, 0.3))  # the last: LayerScale
            variable.assign(rng.uniform(low, high, variable.shape))
        for variable, view in kernels(layer).values():
            spread = (2 / np.prod(view.canonical[:-1])) ** 0.5
            variable.assign(view.back(rng.normal(0, spread, view.canonical).astype("float32"), np))
    norms = [layer for _, layer in leaves(model) if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    x = images(family, 64, seed=1)
    model(x, training=True)
    for norm in norms:
        norm.momentum = 0.99
    sharpen(model, x)
    return model


def sharpen(model, x):
    """Scale the last kernel: an image's logits differ from the others' by about 2."""
    import keras

    last = [layer for layer in model.layers if getattr(layer, "kernel", None) is not None][-1]
    features = keras.Model(model.inputs, last.input)(x, training=False).numpy().reshape(len(x), -1)
    logits = features @ last.kernel.numpy().reshape(-1, CLASSES)
    middle = np.median(logits, 0)
    scale = 2 / np.median((logits - middle).std(-1))
    last.kernel.assign(scale * last.kernel)
    last.bias.assign(-scale * middle)


def snr_db(got, wanted):
    """How far ``got`` is from ``wanted``, against how far the images' answers lie apart."""
    noise, signal = float(((got - wanted) ** 2).sum()), float(((wanted - wanted.mean(0)) ** 2).sum())
    return round(10 * math.log10(max(signal, 1e-20) / max(noise, 1e-20)), 1)


# ---- the columns: each returns figures, and raises where something is in the way ------------------------------------
def strip(family):
    """Half of the weights pruned in one training step; the stripped model has the zeros and the same answers."""
    import keras

    from tfcompress import CompressionCallback, OneShot, Prune, compress
    from tfcompress import strip as stripped
    from tfcompress.layout import kernels
    from tfcompress.model import compressed_tensors, leaves

    model = build(family)
    pruned = compress(model, Prune(OneShot(0.5)))
    train(pruned, family, [CompressionCallback()])
    sharpen(pruned, images(family, 64, seed=1))
    plain, tensors = stripped(pruned), compressed_tensors(pruned)
    found, x = dict(leaves(plain)), shown(family)
    for path, _, key in tensors:
        w = kernels(found[path.removesuffix("/" + key)])[key][0].numpy()
        assert (w == 0).sum() == round(0.5 * w.size), f"{path}: {np.mean(w == 0):.1%} of the weights are zero"
    other = [path for (path, old), new in zip(leaves(model), found.values(), strict=True) if type(old) is not type(new)]
    assert not other, f"the stripped model has other layers at {other[:3]}"
    wanted, got = pruned.predict(x, verbose=0), plain.predict(x, verbose=0)
    gap = float(np.abs(wanted - got).max())
    assert gap <= 1e-6 and wanted.std(0).mean() > 1e-3, f"outputs differ by {gap}, spread {wanted.std(0).mean()}"
    return {"tensors": len(tensors), "largest_difference": gap, "keras": keras.__version__}


def train(model, family, callbacks=()):
    """One optimizer step on eight images, a short one: gradients of random nets are huge."""
    import keras

    model.compile(keras.optimizers.SGD(1e-3, global_clipnorm=1.0), "sparse_categorical_crossentropy")
    model.fit(images(family, 8, seed=3), np.arange(8) % CLASSES, batch_size=8, verbose=0, callbacks=list(callbacks))


def filters(family):
    """35 % of the MACs to go by removing filters; 30 % must be gone from the float file."""
    import tfcompress

    model, data = build(family), (images(family, 32, seed=3), np.arange(32) % CLASSES)
    done = tfcompress.prune_filters(model, data, 0.65, "flops", criterion="l2_norm", rounds=1, fit=0)
    sharpen(done.model, images(family, 64, seed=1))
    files = [tfcompress.convert(each, "float32") for each in (model, done.model)]
    before, after = (tfcompress.inspect(file).macs for file in files)
    figures = compare(files[1], family, answers(done.model, family)) | {
        "macs": before, "macs_left": after, "gone": round(1 - after / before, 4), "parameters": model.count_params(),
        "parameters_left": done.model.count_params(), "fenced": [f"{path}: {why}" for path, why in done.fenced],
    }  # fmt: skip
    if figures["gone"] < 0.3 or figures["snr_db"] < LEAST_DB["float32"]:
        figures["reason"] = f"{figures['gone']:.1%} of the MACs are gone, SNR {figures['snr_db']} dB"
    return figures


def qat(family):
    """One training step with fake-quantization, ranges from data, an int8 file; beside the Keras QAT model."""
    from tfcompress import calibrate, convert, quantize_aware, skipped_layers

    aware = quantize_aware(build(family))
    calibrate(aware, images(family, CALIBRATION))
    train(aware, family)
    file = convert(aware, "int8", calibration=shown(family))
    figures = compare(file, family, answers(aware, family)) | {"float_layers": len(skipped_layers(aware))}
    if figures["snr_db"] < LEAST_DB["int8"]:
        figures["reason"] = f"the file is not the model: SNR {figures['snr_db']} dB"
    return figures


def compare(file, family, wanted):
    """The file on the test images, beside the answers ``wanted``; and what the gate saw."""
    got, (row,), gate = file.predict(shown(family)), file.gate.agreement, file.gate
    return {"snr_db": snr_db(got, wanted), "top1": float((got.argmax(-1) == wanted.argmax(-1)).mean()),
            "largest_difference": round(row.max_difference, 6), "unit": row.unit, "samples": gate.samples,
            "settings": len(gate.ran), "elsewhere": round(max(gate.elsewhere.values()), 6), "bytes": file.size,
            "float_islands": len(gate.float_islands), "notes": list(gate.notes)}


def precisions(family):
    """All six files. The gate runs each on ai_edge_litert and tf.lite, with XNNPACK and with the built-in kernels."""
    from tfcompress import convert
    from tfcompress.convert import PRECISIONS, ConversionError

    model, x, figures, wrong = build(family), images(family, CALIBRATION), {}, []
    for precision in PRECISIONS:
        try:
            file = convert(model, precision, x)
            figures[precision] = compare(file, family, answers(model, family, BITS.get(precision, 8)))
        except (ValueError, ConversionError) as error:
            figures[precision] = {"error": first_line(error)}
        snr = figures[precision].get("snr_db", -99)
        if snr < LEAST_DB[precision]:
            wrong.append(f"{precision}: {figures[precision].get('error', f'SNR {snr} dB')}")
    return figures | ({"reason": "; ".join(wrong)} if wrong else {})


def answers(model, family, bits=None):
    """The Keras model's answers, with the kernels that a file of ``bits`` bits has: depthwise ones keep 8."""
    from tfcompress.layout import kernels
    from tfcompress.model import leaves
    from tfcompress.quantization.uniform import Uniform

    kept = model.get_weights()
    for variable, view in [pair for _, layer in leaves(model) for pair in kernels(layer).values() if bits]:
        depthwise = len(view.canonical) == 3 or view.canonical[-2] == 1
        rounded = Uniform(max(8, bits) if depthwise else bits).apply(view.to(variable.numpy(), np), {})
        variable.assign(view.back(np.asarray(rounded), np))
    said = model(shown(family), training=False).numpy()  # predict may use XLA: other rounding
    model.set_weights(kept)
    return said


COLUMNS = {"strip": strip, "filters": filters, "qat": qat, "precisions": precisions}
