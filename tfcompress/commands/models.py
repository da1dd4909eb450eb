"""What commands share that make one ``.keras`` file of another: names checked, models read and written, data."""

from pathlib import Path


def budget(text):
    """``"0.5"`` as a number, ``"flops=0.4,bytes=0.3"`` as a dict."""
    try:
        parts = [part.partition("=") for part in text.split(",")]
        return {name: float(number) for name, _, number in parts} if "=" in text else float(text)
    except ValueError:
        raise ValueError(f"--target is a number, or flops=0.4,bytes=0.3. Received: {text!r}.") from None


def keras_files(source, output):
    """The --output of a command that reads one .keras file and writes another, both checked before any work."""
    output = Path(output)
    if output.suffix != ".keras" or not output.parent.is_dir():
        raise ValueError(f"--output is a .keras file in a folder that exists. Received: {output}.")
    if not Path(source).is_file():
        raise ValueError(f"No .keras file at {source!r}.")
    if Path(source).suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"Expected a Keras model, .keras or .h5. Received: {source!r}.")
    return output


def examples(path, labels=True):
    """``(x, y)`` of an .npz file; without labels y may be missing, and is None."""
    from tfcompress.arrays import read_npz
    data = read_npz(path)
    if missing := ({"x", "y"} if labels else {"x"}) - set(data):
        raise ValueError(f"{path} lacks the arrays {sorted(missing)}. It holds: {sorted(data)}.")
    return data["x"], data.get("y")


def load(source, compiled=False):
    import keras
    try:
        return keras.models.load_model(source, compile=compiled)
    except TypeError as error:                           # a class or a loss of the user's own
        raise ValueError(f"{source} can't be loaded here: {str(error).splitlines()[0]} Call it from Python, where your "
                         "own classes and losses are known.") from None
    except KeyError as error:                            # parts of the archive
        raise ValueError(f"{source} is no whole Keras model: {error.args[0]}.") from None


def write_small(small, model, output, fenced):
    part = output.with_name(f"part_{output.name}")
    small.save(part)
    part.rename(output)
    print(f"{output}: {small.count_params():,} parameters of {model.count_params():,}")
    for path, reason in fenced:
        print(f"  not followed: {path}: {reason}")
