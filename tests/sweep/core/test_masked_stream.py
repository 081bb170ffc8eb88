"""What a program prints is masked, and its stream is otherwise the same."""

from __future__ import annotations

import io
import sys

import pytest

from sweep.core.masked_stream import MaskedStream, masked_output


def test_what_is_printed_is_masked(capsys: pytest.CaptureFixture[str]):
    with masked_output():
        print("View run at: http://me:planted@host/x")
        print("password=planted", file=sys.stderr)
    print("password=seen")
    shown = capsys.readouterr()
    assert shown.out == "View run at: http://***@host/x\npassword=seen\n"
    assert shown.err == "password=***\n"


def test_a_masked_stream_is_like_its_stream():
    inner = io.StringIO()
    stream = MaskedStream(inner)
    assert stream.write("token=abcdef\n") == 13
    stream.writelines(["a\n", "secret=x\n"])
    assert stream.getvalue() == "token=***\na\nsecret=***\n"
    assert stream.isatty() == inner.isatty()
    assert not stream.closed
