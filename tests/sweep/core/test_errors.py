"""Errors as a user reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.core.errors import UserError, described, disk_errors, first_line


def test_a_full_disk_is_told_in_words():
    with pytest.raises(UserError, match="no space is left on the disk"), disk_errors():
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError), disk_errors():
        Path("/nowhere/x").read_text()


def test_the_cause_of_a_database_s_error_is_its_first_line():
    text = "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)\n"
    assert first_line(f"{text}(sqlite3.OperationalError) database or disk is full\n[SQL: …]") == (
        "(sqlite3.OperationalError) database or disk is full"
    )


def test_an_exception_is_described_by_its_class_and_message():
    assert described(ValueError("wrong")) == "ValueError: wrong"
    assert described(KeyboardInterrupt()) == "KeyboardInterrupt"
