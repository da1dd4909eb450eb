"""Six ways to store sparse codes {0, +-1, +-2, +-4}: bytes that the coders of `tfcompress.packing` really write."""

import numpy as np

from tfcompress.packing import ans, bits, gaps, huffman

SPEC = {  # sparsity -> 32 / bits a weight: 3 bits without an index, with runs of 4 and 5 bits, Rice, Huffman, entropy
    0.887: (94, 34.5, 34.7, 37.2, 39.3, 40.0),
    0.90: (107, 37.2, 38.6, 41.2, 43.2, 44.0),
    0.92: (133, 42.1, 46.4, 49.6, 51.7, 52.5),
    0.94: (178, 47.8, 57.4, 62.2, 65.3, 66.3),
    0.95: (213, 51.2, 64.6, 73.1, 76.2, 77.0),
    0.956: (242, 53.3, 69.5, 81.5, 84.7, 85.5),
    0.96: (267, 54.8, 73.0, 88.2, 91.6, 92.6),
}


def columns(codes: np.ndarray) -> dict[str, int]:
    """Bytes of int8 codes, 1-D, by each way; "no index" alone can't be read back."""
    index = np.searchsorted(np.array([-4, -2, -1, 0, 1, 2, 4]), codes)
    distances, values = gaps.split(index, zero=3)
    plain = len(bits.write_fixed(values, 3))
    found = {"3 bits, no index": plain}
    for width in (4, 5):
        cut, filled = gaps.with_fillers(distances, values, 3, width)
        found[f"3 bits + runs of {width}"] = len(bits.write_fixed(cut, width)) + len(bits.write_fixed(filled, 3))
    found["3 bits + Rice"] = plain + len(bits.write_rice(distances, bits.rice_parameter(distances)[0]))
    tables = [huffman.code_lengths(np.bincount(part)) for part in (distances, values)]
    found["Huffman of both"] = sum(
        len(huffman.write(part, table)) for part, table in zip((distances, values), tables, strict=True)
    )
    found["ANS"] = sum(map(len, ans.write(index, ans.frequencies(np.bincount(index)))))
    return found
