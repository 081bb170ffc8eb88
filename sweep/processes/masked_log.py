"""The output of a child process, masked as it is written to a file: no kill leaves a secret there.

The child's standard output and error are a pipe, so what its C libraries print, up to a crash, arrives too. The
parent reads the pipe. When the parent is killed, only what is already masked is in the file.
"""

from __future__ import annotations

import os
import re
import threading
from multiprocessing import connection
from pathlib import Path

from sweep.core import redaction

_CHUNK_BYTES = 1 << 16  # what a pipe holds
_LONGEST_BYTES = 1 << 20  # of a line; what is longer is written in parts
_LAST_SECONDS = 5.0  # a process that the child has left behind may hold the pipe open
_BEGIN, _END = (re.compile(rb"-----" + word + rb" [A-Z ]*PRIVATE KEY-----") for word in (b"BEGIN", b"END"))


class MaskedLog:
    """A thread that appends what arrives on `output` to a file, line by line, with secrets masked."""

    def __init__(self, output: connection.Connection, file: Path):
        self._output = output
        # For its owner alone: a secret of an unknown form is not masked.
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until everything that the child has written is in the file."""
        self._thread.join(_LAST_SECONDS)

    def _copy(self) -> None:
        rest = b""
        try:
            while chunk := os.read(self._output.fileno(), _CHUNK_BYTES):
                whole, rest = _whole(rest + chunk)
                self._write(whole)
            self._write(rest)
        finally:
            os.close(self._file)
            self._output.close()

    def _write(self, block: bytes) -> None:
        """All of it: a full disk loses what follows, and does not stop the child."""
        left = redaction.text(block.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            return


def _whole(text: bytes) -> tuple[bytes, bytes]:
    """The complete lines, and the rest. Progress bars end lines by a carriage return. A private key is one piece."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    *_, begun = [None, *_BEGIN.finditer(text)]
    if begun is not None and not _END.search(text, begun.end()):
        end = min(end, begun.start())
    if len(text) > _LONGEST_BYTES and end == 0:
        end = len(text)
    return text[:end], text[end:]
