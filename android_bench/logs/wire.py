"""The few lines of protobuf's wire format that reading benchmark_model's own files takes."""

import struct

from android_bench.logs.log_lines import LogError

_FIXED = {1: "<d", 5: "<f"}  # benchmark_model writes floats, never fixed-width integers


def fields(data: bytes) -> dict[int, list]:
    """Field number -> its values in order: int (varint), float, or bytes (text or a nested message).

    >>> fields(b"\\x08\\x96\\x01\\x12\\x02hi")
    {1: [150], 2: [b'hi']}

    Raises:
        LogError: no protobuf message, or a cut one.
    """
    values, at = {}, 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = _slice(data, at, size), at + size
        elif kind in _FIXED:
            size = struct.calcsize(_FIXED[kind])
            value, at = struct.unpack(_FIXED[kind], _slice(data, at, size))[0], at + size
        else:
            raise LogError(f"Expected a protobuf message. Received: wire type {kind} before byte {at}")
        values.setdefault(tag >> 3, []).append(value)
    return values


def message(parent: dict[int, list], number: int) -> dict[int, list]:
    """The fields of the nested message `number`; none if it is absent."""
    values = parent.get(number, [b""])
    if not isinstance(values[-1], bytes):
        raise LogError(f"Expected a message in protobuf field {number}. Received: {values[-1]!r}")
    return fields(values[-1])


def _slice(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise LogError(f"The protobuf message ends early: {size} bytes wanted at byte {at} of {len(data)}")
    return data[at : at + size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        byte = _slice(data, at + index, 1)[0]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise LogError(f"Expected a protobuf message. Received: a number of more than 10 bytes at byte {at}")
