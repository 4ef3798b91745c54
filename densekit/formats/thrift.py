"""Reader of Thrift's compact protocol, which encodes the footers and page headers of Parquet.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any


def read_struct(data: bytes, position: int = 0) -> tuple[dict[int, Any], int]:
    """Read a struct at ``position``; return its values by field number, and the position of its end.

    Raises
    ------
    IndexError
        The data end before the end of the struct.
    ValueError, RecursionError
        The data are not a struct, or it is nested too deeply.

    Examples
    --------
    >>> read_struct(bytes([0x15, 0x06, 0x18, 0x01, 0x61, 0x00]))
    ({1: 3, 2: b'a'}, 6)
    """
    values: dict[int, Any] = {}
    number = 0
    while head := data[position]:
        position += 1
        if head >> 4:
            number += head >> 4
        else:
            number, position = _integer(data, position)
        kind = head & 15
        if kind < 3:  # The types of booleans are their values.
            values[number] = kind == 1
        else:
            values[number], position = _value(data, position, kind)
    return values, position + 1


def _value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 4 | 5 | 6:
            return _integer(data, position)
        case 8:
            length, position = _varint(data, position)
            end = position + length
            if end > len(data):
                raise IndexError(end)
            return data[position:end], end
        case 12:
            return read_struct(data, position)
        case 9 | 10:
            return _list(data, position)
        case 1 | 2 | 3:
            return data[position], position + 1
        case 7:  # A float, whose value is not needed.
            return None, position + 8
    raise ValueError(f"type {kind} does not occur in a struct of Parquet")


def _list(data: bytes, position: int) -> tuple[list[Any], int]:
    head = data[position]
    length, position = head >> 4, position + 1
    if length == 15:
        length, position = _varint(data, position)
    values = []
    for _ in range(length):  # A value takes at least one byte, so the data bound the loop.
        value, position = _value(data, position, head & 15)
        values.append(value)
    return values, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")


def _integer(data: bytes, position: int) -> tuple[int, int]:
    value, position = _varint(data, position)
    return value >> 1 ^ -(value & 1), position
