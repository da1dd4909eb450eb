"""What the packer knows before it sees a file: the skeleton of a small int8 net, into primer.bin and unpack.c.

    scripts/make_primer.py     changes the format: files packed before can't be unpacked after, so raise pack.VERSION

Nothing of it is measured on: tests and tables pack other nets.
"""

from pathlib import Path

import keras
import numpy as np

from tfcompress.convert import convert
from tfcompress.packing.segments import segments

ROOM = Path(__file__).parents[1] / "tfcompress" / "packing"


def net():
    layers = keras.layers
    entry = keras.Input((16, 16, 2), name="input")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv2d_0")(entry)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(layers.DepthwiseConv2D(3, name="depthwise_conv2d")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, activation="relu")(x))
    x = layers.Dense(12, activation="relu", name="dense")(x)
    return keras.Model(entry, layers.Dense(6, activation="softmax", name="dense_1")(x))


def skeleton(content: bytes) -> bytes:
    """The file without its weights, which are cut so that every byte keeps its place in a row of four."""
    kept, end = b"", 0
    for segment in segments(content):
        first, last = -(-segment.start // 4) * 4, (segment.start + segment.length) // 4 * 4
        kept, end = kept + content[end:first], last
    return kept + content[end:]


def main():
    keras.utils.set_random_seed(0)
    samples = np.random.default_rng(0).random((120, 16, 16, 2), np.float32)
    primer = skeleton(convert(net(), "int8", samples).content)
    (ROOM / "primer.bin").write_bytes(primer)
    into_c(primer)
    print(f"{len(primer)} bytes")


def into_c(primer: bytes):
    source = (ROOM / "unpack.c").read_text()
    before, rest = source.split("/* primer.bin */\n")
    rest = rest[rest.index("/* end of primer.bin */") :]
    lines = [", ".join(map(str, primer[i : i + 28])) for i in range(0, len(primer), 28)]
    array = f"static const uint8_t primer[{len(primer)}] = {{\n" + ",\n".join(lines) + "\n};\n"
    (ROOM / "unpack.c").write_text(f"{before}/* primer.bin */\n{array}{rest}")


if __name__ == "__main__":
    main()
