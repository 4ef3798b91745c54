"""Thrift's compact protocol, in which Parquet's footers and headers of pages are written.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any


def read_struct(data: bytes, place: int = 0) -> tuple[dict[int, Any], int]:
    """A struct that begins at ``place``: its values by the number of their field, and where it ends.

    Raises
    ------
    IndexError
        The data end before the struct.
    ValueError, RecursionError
        What is there is no struct, or one that is nested without end.

    Examples
    --------
    >>> read_struct(bytes([0x15, 0x06, 0x18, 0x01, 0x61, 0x00]))
    ({1: 3, 2: b'a'}, 6)
    """
    found: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        place += 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _integer(data, place)
        kind = head & 15
        if kind < 3:  # true and false are said by the type itself
            found[number] = kind == 1
        else:
            found[number], place = _value(data, place, kind)
    return found, place + 1


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 4 | 5 | 6:
            return _integer(data, place)
        case 8:
            length, place = _varint(data, place)
            end = place + length
            if end > len(data):
                raise IndexError(end)
            return data[place:end], end
        case 12:
            return read_struct(data, place)
        case 9 | 10:
            return _list(data, place)
        case 1 | 2 | 3:
            return data[place], place + 1
        case 7:  # a float, which nothing here needs
            return None, place + 8
    raise ValueError(f"type {kind} is in no struct of Parquet")


def _list(data: bytes, place: int) -> tuple[list[Any], int]:
    head = data[place]
    length, place = head >> 4, place + 1
    if length == 15:
        length, place = _varint(data, place)
    values = []
    for _ in range(length):  # each takes a byte at least, so that the data bound the list
        value, place = _value(data, place, head & 15)
        values.append(value)
    return values, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return value >> 1 ^ -(value & 1), place
