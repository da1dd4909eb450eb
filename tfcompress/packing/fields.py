"""Headers: small numbers written one after the other, read back with every bound checked."""


class Fields(bytearray):
    """Bytes that grow by numbers: seven bits a byte, the lowest first, the top bit set while more follow (LEB128).

    >>> fields = Fields()
    >>> fields.number(5)
    >>> fields.number(300)
    >>> bytes(fields).hex()
    '05ac02'
    >>> reader = Reader(bytes(fields))
    >>> reader.number(), reader.number(), reader.left
    (5, 300, 0)
    """

    def number(self, value: int) -> None:
        """Append a whole number of 0 or more."""
        value = int(value)
        while value > 127:
            self.append(value & 127 | 128)
            value >>= 7
        self.append(value)


def length(*numbers: int) -> int:
    """Bytes that these numbers take in `Fields`.

    >>> length(127, 128)
    3
    """
    return sum(max(1, (int(number).bit_length() + 6) // 7) for number in numbers)


class Reader:
    """Reads what `Fields` wrote; ValueError where the bytes end too early or a number is above its `limit`."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.content) - self.place

    def number(self, limit: int = 2**40) -> int:
        """The next number, 0 to `limit`."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if value > limit or shift > 63:
                raise ValueError(f"a number above {limit}")
            if byte < 128:
                return value

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise ValueError(f"{count} bytes wanted where {self.left} are left")
        self.place += count
        return self.content[self.place - count : self.place]
