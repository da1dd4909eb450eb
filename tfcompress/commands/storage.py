"""``pack``, ``unpack``: a ``.tflite`` file in the fewest bytes, and back."""

from pathlib import Path

from absl import flags

from tfcompress.commands.flags import flag_values, parse


def pack_command(argv):
    """``tfcompress pack MODEL.tflite``"""
    values = flag_values()
    flags.DEFINE_string("output", None, "the .tfcp file to write (default: beside MODEL)", short_name="o",
                        flag_values=values)
    flags.DEFINE_bool("weights", False, "a line for every tensor that is coded", flag_values=values)
    (source,) = parse(values, argv, "pack MODEL.tflite", 1, "unpack.c in tfcompress/packing reads the file in an app.")
    from android_bench.store import write_file
    from tfcompress.measure import storage
    from tfcompress.pack import packing
    output = _output(values, source, ".tfcp")
    packed = packing(source)
    _check_other(output, source)
    write_file(output, packed.content)
    print(storage(source, packed))
    if values.weights:
        print(packed.listing())
    print(f"{output}: {len(packed.content):,} bytes")


def unpack_command(argv):
    """``tfcompress unpack MODEL.tfcp``"""
    values = flag_values()
    flags.DEFINE_string("output", None, "the .tflite file to write (default: beside MODEL)", short_name="o",
                        flag_values=values)
    (source,) = parse(values, argv, "unpack MODEL.tfcp", 1)
    from android_bench.store import write_file
    from tfcompress.pack import unpack
    output = _output(values, source, ".tflite")
    content = unpack(Path(source).read_bytes())
    _check_other(output, source)
    write_file(output, content)
    print(f"{output}: {len(content):,} bytes")


def _output(values, source, suffix):
    output = Path(values.output or Path(source).with_suffix(suffix))
    if values.output and not output.parent.is_dir():
        raise OSError(f"Can't write {output}: the folder {output.parent} does not exist.")
    return output


def _check_other(output, source):
    """After the file was read: one of the wrong kind has another message, though by default it has the same name."""
    if output.resolve() == Path(source).resolve():
        raise ValueError(f"--output is another file than the one that is read. Received: {output} for both.")
