"""``mixed``: bits layer by layer, within a budget of bytes or time and of points of accuracy."""

import os
from pathlib import Path

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required


def mixed_command(argv):
    values = flag_values()
    flags.DEFINE_string("data", None, ".npz with x (samples first), y (class numbers): the validation set",
                        flag_values=values)
    flags.DEFINE_float("bytes", None, "of the file; below 1 a share of the float32 file's", flag_values=values)
    flags.DEFINE_float("latency_us", None, "of one run, measured on --device; below 1 a share of the float32 file's",
                       flag_values=values)
    flags.DEFINE_float("max_drop", 1.0, "points of accuracy that may be lost", flag_values=values)
    flags.DEFINE_string("calibration", None, ".npz of inputs by name: int8 activations by fixed ranges",
                        flag_values=values)
    flags.DEFINE_list("precisions", None, "of int2,int4,int8,int16x8,float16,float32 (default: all that run)",
                      flag_values=values)
    flags.DEFINE_string("device", "host", "host, or a phone's serial number", flag_values=values)
    flags.DEFINE_string("output", None, "the .tflite file to write", short_name="o", flag_values=values)
    usage = "mixed MODEL --data x.npz --max-drop 1.0 --bytes 20000 -o SMALL.tflite"
    argv = [part.replace("--max-drop", "--max_drop").replace("--latency-us", "--latency_us") for part in argv]
    (model,) = parse(values, argv, usage, 1, "MODEL: .keras, .h5, SavedModel folder or float .tflite.")
    output = Path(required(values, "output"))
    if output.suffix != ".tflite" or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise ValueError(f"--output is a .tflite file in a folder that can be written to. Received: {output}.")
    target = {name: values[name].value for name in ("bytes", "latency_us") if values[name].value is not None}
    if not target:
        raise ValueError("--bytes or --latency_us is needed. Call the command with --help to see its flags.")
    from tfcompress.arrays import read_npz
    data = read_npz(required(values, "data"))
    if missing := {"x", "y"} - set(data):
        raise ValueError(f"{values.data} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    if not Path(model).exists():
        raise ValueError(f"No model at {model!r}.")
    with quiet():
        from tfcompress.mixed import BudgetError, mixed_precision
        try:
            found = mixed_precision(model, (data["x"], data["y"]), target, max_drop=values.max_drop,
                                    calibration=values.calibration, precisions=values.precisions, device=values.device)
        except BudgetError as error:
            print(f"No file is written. The nearest one:\n{error.nearest}")
            raise
    found.file.save(output)
    print(found)
    print(f"{output}: {found.file.size:,} bytes")
    print(found.file.gate)
