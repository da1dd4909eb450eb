"""``one-click``: a trained model in, a small or fast ``.tflite``, its packed form and a report out; no data."""

import os
from pathlib import Path

from absl import flags

from android_bench.store import write_file
from tfcompress.commands.flags import flag_values, parse, quiet


def one_click_command(argv):
    values = flag_values()
    flags.DEFINE_string("target", "small", "small (fewest bytes that cost little), fast (int8 activations, too), a "
                        "ratio such as 8 (times smaller), or bytes of the file, above 1000", flag_values=values)
    flags.DEFINE_string("output", None, "the .tflite file to write (default: beside MODEL); .tfcp and .html go beside "
                        "it", short_name="o", flag_values=values)
    (given,) = parse(values, argv, "one-click MODEL", 1, "MODEL: .keras, .h5, SavedModel folder or float .tflite.")
    target = _target(values.target)
    output = Path(values.output or f"{Path(given).with_suffix('')}_{values.target}.tflite")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OSError(f"Can't write {output}: the folder {output.parent} does not exist or is read-only.")
    with quiet():
        from tfcompress.data_free.click import in_words, one_click
        from tfcompress.data_free.report import write_report
        if Path(given).exists():
            import keras  # noqa: F401
        found = one_click(given, target)                 # LiteRT writes to stderr; errors come as such
    found.file.save(output)
    write_file(output.with_suffix(".tfcp"), found.packed)
    page = write_report(found, output.with_suffix(".html"), title=Path(given).name)
    print(f"{output}\n{found}\nreport: {page}")
    if not found.met:
        raise RuntimeError(f"{in_words(target)} can't be met: {output} of {found.file.size:,} bytes is the "
                           "smallest there is.")


def _target(text):
    """The word, or the number."""
    try:
        return float(text)
    except ValueError:
        return text
