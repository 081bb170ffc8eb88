"""A TensorBoard event file of scalars, written without TensorFlow or the package tensorboard.

The file is a sequence of records (TFRecord): length, checksum of the length, an `Event` of TensorFlow's event.proto,
checksum of the event. Checksums are CRC-32C (RFC 3720, appendix B.4), rotated and shifted as TensorFlow masks them.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reversed
_MASK = 0xA282EAD8


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of the bytes."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


class EventFile:
    """A new event file in a folder, which TensorBoard shows as one run."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file = (folder / name).open("wb")
        self._write(_event(0, _field(3, b"brain.Event:2")))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values at an optimizer step."""
        summary = b"".join(
            _field(1, _field(1, name.encode()) + b"\x15" + struct.pack("<f", value)) for name, value in values.items()
        )
        self._write(_event(step, _field(5, summary)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _checksum(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF)


def _event(step: int, content: bytes) -> bytes:
    """An Event: wall_time (1), step (2), and file_version (3) or summary (5)."""
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + content


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
