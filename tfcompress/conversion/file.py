"""A `.tflite` file as the schema's objects, and back."""

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils


def read(content):
    """The schema's ``ModelT``, to be changed in place."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write(model):
    """``model`` as bytes. Buffers that are not arrays would be copied byte by byte: 20 s for ResNet50."""
    for buffer in model.buffers:
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(bytes(buffer.data), "uint8")
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
