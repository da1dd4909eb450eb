"""tfcompress: from a Keras model to a small, fast, verified ``.tflite`` on real Android phones."""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tfcompress needs the TensorFlow backend of Keras 3. Received: KERAS_BACKEND={_keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before keras is imported.")

from tfcompress._version import __version__
from tfcompress.callback import CompressionCallback
from tfcompress.chain import Chain
from tfcompress.method import Method, straight_through
from tfcompress.model import compress, strip
from tfcompress.pruning.prune import Prune
from tfcompress.quantization.float16 import Float16
from tfcompress.quantization.uniform import Uniform
from tfcompress.schedules import Constant, Cosine, Linear, OneShot, Polynomial
from tfcompress.wrapper import Compressed

__all__ = [
    "Chain", "Compressed", "CompressionCallback", "Constant", "Cosine", "Float16", "Linear", "Method", "OneShot",
    "Polynomial", "Prune", "Uniform", "__version__", "compress", "straight_through", "strip",
]
