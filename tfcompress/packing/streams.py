"""A stream of symbols 0 .. kinds - 1 by the coder that needs the fewest bytes, known before any is written."""

import dataclasses

import numpy as np

from tfcompress.packing import ans, bits, huffman
from tfcompress.packing.fields import Fields, Reader
from tfcompress.packing.fields import length as length_of

FIXED, RICE, HUFFMAN, ANS_ROUNDED, ANS_EXACT = range(5)
NAMES = {FIXED: "fixed", RICE: "Rice", HUFFMAN: "Huffman", ANS_ROUNDED: "ANS", ANS_EXACT: "ANS"}
HUFFMAN_SYMBOLS = 2**20  # Python reads a Huffman or Rice code symbol by symbol: not for longer streams


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A coder for one stream: what its table and its symbols take (`size`, bytes: exact, but ANS within 8 a block)."""

    coder: int
    size: float
    parameter: object  # width of FIXED, k of RICE, lengths of HUFFMAN, counts of the two others

    @property
    def name(self) -> str:
        return NAMES[self.coder]


def choices(counts: np.ndarray | None, symbols: np.ndarray | None = None) -> list[Choice]:
    """All coders for a stream in which symbol i comes `counts[i]` times; Rice only where the `symbols` are given.

    `counts` may be None for symbols too large to be counted: then it is Rice, however many there are.

    >>> [(c.name, c.size) for c in choices(np.array([4, 2, 1, 1]))][:2]
    [('fixed', 4), ('Huffman', 9)]
    """
    if counts is None:
        return [_rice(symbols)]
    count, kinds = int(counts.sum()), len(counts)
    width = max(kinds - 1, 0).bit_length()
    found = [Choice(FIXED, 2 + (count * width + 7) // 8, width)]
    if symbols is not None and count <= HUFFMAN_SYMBOLS:
        found.append(_rice(symbols))
    if not 1 < kinds <= ans.MOST_SYMBOLS or not count:
        return found
    if count <= HUFFMAN_SYMBOLS:
        lengths = huffman.code_lengths(counts)
        size = (int((lengths * counts).sum()) + 7) // 8
        found.append(Choice(HUFFMAN, 1 + length_of(kinds, size) + kinds + size, lengths))
    codes = ans.rounded(counts)
    table = ans.frequencies(ans.counts_of(codes))
    state = 6 * -(-count // ans.BLOCK)
    found.append(Choice(ANS_ROUNDED, 4 + length_of(*codes.tolist()) + state + ans.bits(counts, table) / 8, codes))
    exact = length_of(*counts.tolist()) + 4 + state
    found.append(Choice(ANS_EXACT, exact + ans.bits(counts, ans.frequencies(counts)) / 8, counts))
    return found


def _rice(symbols) -> Choice:
    k, length = bits.rice_parameter(symbols)
    size = (length + 7) // 8
    return Choice(RICE, 2 + length_of(size) + size, k)


def cheapest(counts: np.ndarray | None, symbols: np.ndarray | None = None) -> Choice:
    """The one of `choices` that needs the fewest bytes."""
    return min(choices(counts, symbols), key=lambda choice: choice.size)


def write(symbols: np.ndarray, choice: Choice, fields: Fields, payload: list[bytes]) -> None:
    """Append the coder's table to `fields` and the symbols to `payload`."""
    fields.append(choice.coder)
    if choice.coder == FIXED:
        fields.number(choice.parameter)
        payload.append(bits.write_fixed(symbols, choice.parameter))
        return
    if choice.coder == RICE:
        fields.number(choice.parameter)
        blocks = [bits.write_rice(symbols, choice.parameter)]
    else:
        fields.number(len(choice.parameter))
        for value in choice.parameter.tolist():
            fields.number(value)
        if choice.coder == HUFFMAN:
            blocks = [huffman.write(symbols, choice.parameter)]
        else:
            blocks = ans.write(symbols, _frequencies(choice.coder, choice.parameter))
    for block in blocks:
        fields.number(len(block))
    payload += blocks


def read(fields: Reader, payload: Reader, count: int, kinds: int) -> np.ndarray:
    """The `count` symbols that `write` wrote, all below `kinds`; ValueError for damaged ones."""
    coder = fields.take(1)[0]
    if coder == FIXED:
        width = fields.number(16)
        symbols = bits.read_fixed(payload.take((count * width + 7) // 8), width, count)
    elif coder == RICE:
        k = fields.number(15)
        symbols = bits.read_rice(payload.take(fields.number()), k, count)
    elif coder in (HUFFMAN, ANS_ROUNDED, ANS_EXACT):
        length = fields.number(ans.MOST_SYMBOLS)
        table = np.array([fields.number(2**32 - 1) for _ in range(length)], np.int64)
        if len(table) < 2:
            raise ValueError("a table of fewer than 2 symbols")
        if coder == HUFFMAN:
            symbols = huffman.read(payload.take(fields.number()), table, count)
        else:
            symbols = _read_ans(fields, payload, _frequencies(coder, table), count)
    else:
        raise ValueError(f"the unknown coder {coder}")
    if len(symbols) and int(symbols.max()) >= kinds:
        raise ValueError(f"a symbol above {kinds - 1}")
    return symbols


def _frequencies(coder: int, table: np.ndarray) -> np.ndarray:
    if coder == ANS_ROUNDED and table.max() > 239:  # above, counts would leave 32 bits
        raise ValueError("a count above 2**32")
    return ans.frequencies(ans.counts_of(table) if coder == ANS_ROUNDED else table)


def _read_ans(fields: Reader, payload: Reader, frequency: np.ndarray, count: int) -> np.ndarray:
    lengths = [fields.number() for _ in range(-(-count // ans.BLOCK))]
    symbols = np.empty(count, np.uint16)
    for first, length in zip(range(0, count, ans.BLOCK), lengths, strict=True):
        part = min(ans.BLOCK, count - first)
        symbols[first : first + part] = ans.read(payload.take(length), frequency, part)
    return symbols
