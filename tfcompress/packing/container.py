"""The two halves of a `.tfcp`: what describes the weights and the file around them, and the coded weights behind it."""

import lzma

from tfcompress.packing import mixing, skeleton, weight_model
from tfcompress.packing.fields import Reader

MIXED, LZMA = 0, 1
_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 2**24, "lc": 0, "lp": 2, "pb": 2}]


def write(head: bytes, pieces: list[tuple[int, bytes]], mixed: list) -> tuple[int, list[bytes]]:
    """The coder, and its streams.

    Args:
        head: the description of all tensors.
        pieces: the bytes between tensors, each with its place in the file.
        mixed: (codes, kinds, (zero, row, filter)) of each tensor whose codes are mixed.
    """
    coder = mixing.Encoder()
    if len(head) + sum(len(piece) for _, piece in pieces) > skeleton.MIXED_MOST:
        packed = lzma.compress(head + b"".join(piece for _, piece in pieces), lzma.FORMAT_RAW, filters=_FILTERS)
        _write_mixed(coder, mixed)
        return LZMA, [packed, coder.finish()]
    model = skeleton.primed()
    model.code(coder, head, len(head))
    for place, piece in pieces:
        model.code(coder, piece, len(piece), place & 3)
    _write_mixed(coder, mixed)
    return MIXED, [coder.finish()]


def _write_mixed(coder, mixed):
    model = weight_model.Codes() if mixed else None
    for codes, kinds, place in mixed:
        model.code(coder, codes, len(codes), kinds, place)


class Parts:
    """The streams of `write`, read in the same order: the head, the bytes between tensors, the codes of mixed ones."""

    def __init__(self, coder: int, streams: list[bytes], head: int, most: int):
        if coder == MIXED:
            if head > skeleton.MIXED_MOST:
                raise ValueError(f"{head} bytes of head")
            self._decoder, self._model = mixing.Decoder(streams[0]), skeleton.primed()
        else:
            opened = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
            self._plain = Reader(opened.decompress(streams[0], head + most))
            self._decoder, self._model = mixing.Decoder(streams[1]), None
        self._codes, self.left = None, skeleton.MIXED_MOST
        self.decisions = 2 * weight_model.MOST_DECISIONS
        self.head = Reader(self.bytes(head))

    def bytes(self, count: int, place: int = 0) -> bytes:
        """The next bytes; `place`: where they stand in the file."""
        if self._model is None:
            return self._plain.take(count)
        self.left -= count
        if self.left < 0:
            raise ValueError(f"more than {skeleton.MIXED_MOST} mixed bytes")
        return self._model.code(self._decoder, None, count, place & 3)

    def codes(self, form, count: int, fields: Reader):
        """The codes of the next mixed tensor."""
        kinds = len(form.alphabet)
        place = weight_model.read_head(fields, count, kinds)
        self.decisions -= count
        if self.decisions < 0:
            raise ValueError("more mixed codes than there may be")
        self._codes = self._codes or weight_model.Codes()
        return self._codes.code(self._decoder, None, count, kinds, place)
