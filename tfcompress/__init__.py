"""tfcompress: from a Keras model to a small, fast, verified ``.tflite`` on real Android phones.

The public names are imported when first used, so that ``tfcompress --help`` and ``import tfcompress.inspect`` do not
wait for TensorFlow.
"""

import importlib

from tfcompress._version import __version__

_HOME = {
    "Chain": "chain",
    "Compressed": "wrapper",
    "CompressionCallback": "callback",
    "Constant": "schedules",
    "Cosine": "schedules",
    "Distiller": "distillation.distiller",
    "Float16": "quantization.float16",
    "Linear": "schedules",
    "Method": "method",
    "OneShot": "schedules",
    "Polynomial": "schedules",
    "Prune": "pruning.prune",
    "TFLiteModel": "convert",
    "Uniform": "quantization.uniform",
    "compress": "model",
    "convert": "convert",
    "convert_all": "convert",
    "diff": "diff",
    "evaluate": "measure",
    "from_tf_keras": "legacy",
    "inspect": "inspect",
    "quantize_aware": "quantization.aware",
    "run_study": "study.run",
    "skipped_layers": "quantization.aware",
    "straight_through": "method",
    "strip": "model",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'tfcompress' has no attribute {name!r}. Public names: {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"tfcompress.{_HOME[name]}"), name)


def __dir__():
    return sorted(__all__)
