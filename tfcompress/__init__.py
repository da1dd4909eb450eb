"""tfcompress: from a Keras model to a small, fast, verified ``.tflite`` for Android phones.

What needs TensorFlow is imported when first used, so that ``tfcompress --help`` and work on files do not wait for it.
"""

import importlib

from tfcompress._version import __version__
from tfcompress.convert import TFLiteModel, convert, convert_all
from tfcompress.diff import diff
from tfcompress.inspect import inspect
from tfcompress.measure import evaluate
from tfcompress.pack import pack, unpack

_HOME = {
    "ADMM": "quantization.admm",
    "AdaptiveFloat": "quantization.adaptive_float",
    "Binary": "quantization.binary",
    "BudgetError": "mixed",
    "Chain": "chain",
    "Cluster": "quantization.clustering",
    "Compressed": "wrapper",
    "CompressionCallback": "callback",
    "Constant": "schedules",
    "Cosine": "schedules",
    "Distiller": "distillation.distiller",
    "ExtraGradient": "quantization.extragradient",
    "FilterADMM": "pruning.easiedge",
    "Float16": "quantization.float16",
    "KeepZeros": "pruning.keep_zeros",
    "LeastSquaresActivation": "quantization.activations",
    "LeastSquares": "quantization.least_squares",
    "MarginCrossEntropy": "distillation.margin",
    "MarginSoftmax": "distillation.margin",
    "Linear": "schedules",
    "Method": "method",
    "MixedPrecision": "mixed",
    "OneShot": "schedules",
    "Polynomial": "schedules",
    "Prune": "pruning.prune",
    "QuantizedActivation": "quantization.activations",
    "QuantizationNetwork": "quantization.networks",
    "Ternary": "quantization.ternary",
    "TrainedTernary": "quantization.trained_ternary",
    "Uniform": "quantization.uniform",
    "at_resolution": "distillation.resolution",
    "calibrate": "quantization.aware",
    "choose_bits": "quantization.bits_per_layer",
    "compress": "model",
    "factorize": "lowrank.factorize",
    "fenced_layers": "pruning.shrink",
    "freeze_ranges": "quantization.aware",
    "from_tf_keras": "legacy",
    "mixed_precision": "mixed",
    "OneClick": "data_free.click",
    "one_click": "data_free.click",
    "payoff": "gains",
    "prune_filters": "budget",
    "quantize_activations": "quantization.activations",
    "quantize_aware": "quantization.aware",
    "resolution_aware": "distillation.resolution",
    "run_job": "job.run",
    "run_study": "study.run",
    "shrink": "pruning.shrink",
    "slim": "conversion.slim",
    "skipped_layers": "quantization.aware",
    "straight_through": "method",
    "strip": "model",
    "two_stage": "distillation.two_stage",
    "verification_accuracy": "distillation.verification",
}
__all__ = [
    "TFLiteModel", "__version__", "convert", "convert_all", "diff", "evaluate", "inspect", "pack", "unpack", *_HOME,
]  # fmt: skip


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'tfcompress' has no attribute {name!r}. Public names: {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"tfcompress.{_HOME[name]}"), name)


def __dir__():
    return sorted(__all__)
