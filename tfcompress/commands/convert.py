"""``convert``: a Keras model in, a checked ``.tflite`` out."""

import os
from pathlib import Path

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet


def convert_command(argv):
    values = flag_values()
    flags.DEFINE_string("precision", "float32", "float32, float16, dynamic, int8, int16x8, int4, exact or exact8",
                        flag_values=values)
    flags.DEFINE_string("calibration", None, ".npz of inputs by name, for int8 and int16x8", flag_values=values)
    flags.DEFINE_string("output", None, "the .tflite file to write (default: beside MODEL)", short_name="o",
                        flag_values=values)
    flags.DEFINE_enum("io", "float", ["float", "int8"], "type of inputs and outputs", flag_values=values)
    flags.DEFINE_enum("backend", "litert", ["litert", "tflite_converter"], "who quantizes", flag_values=values)
    flags.DEFINE_multi_string("keep_float", [], "regular expression on layers that stay float", flag_values=values)
    flags.DEFINE_integer("static_batch", None, "fix the batch size in the file", flag_values=values)
    (source,) = parse(values, argv, "convert MODEL", 1, "MODEL: .keras, .h5, SavedModel folder or float .tflite.")
    output = Path(values.output or f"{Path(source).with_suffix('')}_{values.precision}.tflite")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OSError(f"Can't write {output}: the folder {output.parent} does not exist or is read-only.")
    from tfcompress.convert import convert
    if Path(source).exists():
        with quiet():
            import keras  # noqa: F401
    file = convert(source, values.precision, values.calibration, io=values.io, backend=values.backend,
                   keep_float=tuple(values.keep_float), static_batch=values.static_batch)
    file.save(output)
    print(f"{output}: {file.size:,} bytes, {file.precision}")
    print(file.gate)
