"""What a `.tfcp` begins with: the description of all tensors, and the file around them, both mixed or by LZMA."""

import lzma

from tfcompress.packing import mixing, skeleton
from tfcompress.packing.fields import Reader
from tfcompress.packing.tensors import lzma_filters

MIXED, LZMA = 0, 1
_FILTERS = lzma_filters(0, 2, 2)


def write(head: bytes, pieces: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    """The coder, and its stream.

    Args:
        head: the description of all tensors.
        pieces: the bytes between tensors, each with its place in the file.
    """
    if len(head) + sum(len(piece) for _, piece in pieces) > skeleton.MIXED_MOST:
        plain = head + b"".join(piece for _, piece in pieces)
        return LZMA, lzma.compress(plain, lzma.FORMAT_RAW, filters=_FILTERS)
    coder, model = mixing.Encoder(), skeleton.primed()
    model.code(coder, head, len(head))
    for place, piece in pieces:
        model.code(coder, piece, len(piece), place & 3)
    return MIXED, coder.finish()


class Parts:
    """The stream of `write`, read in the same order: the head, then the bytes between tensors."""

    def __init__(self, coder: int, stream: bytes, head: int, rest: int):
        self._plain = self._decoder = None
        if coder == MIXED:
            self._decoder, self._model, self._left = mixing.Decoder(stream), skeleton.primed(), skeleton.MIXED_MOST
        else:
            opened = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
            self._plain = Reader(opened.decompress(stream, head + rest + 1))
            if self._plain.left != head + rest or not opened.eof:
                raise ValueError("a main stream of another length")
        self.head = Reader(self.bytes(head))

    def bytes(self, count: int, place: int = 0) -> bytes:
        """The next bytes; `place`: where they stand in the file."""
        if self._plain:
            return self._plain.take(count)
        self._left -= count
        if self._left < 0:
            raise ValueError(f"more than {skeleton.MIXED_MOST} mixed bytes")
        return self._model.code(self._decoder, None, count, place & 3)
