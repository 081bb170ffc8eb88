"""Numbers and tables of text."""

from __future__ import annotations

import pytest

from sweep.core import formatting


def test_a_table_aligns_text_to_the_left_and_numbers_to_the_right():
    rows = [["setting", "peak", "note"], ["lora_r8", "1.5 GiB", "fits"], ["full", "12 GiB", ""]]
    assert formatting.table(rows, left=(0, 2)) == ("setting     peak  note\nlora_r8  1.5 GiB  fits\nfull      12 GiB")


def test_a_line_break_in_a_name_does_not_break_a_table():
    assert formatting.table([["a\nb", "c"], ["long name", "d\t"]]) == "a b        c\nlong name  d"


def test_a_table_without_rows_is_empty():
    assert formatting.table([]) == ""


def test_a_row_with_a_missing_cell_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        formatting.table([["a", "b"], ["a"]])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (-(2**30), "-1.0 GiB")]
)
def test_bytes_are_printed_in_the_largest_unit_that_they_fill(count: float, text: str):
    assert formatting.gib(count) == text
