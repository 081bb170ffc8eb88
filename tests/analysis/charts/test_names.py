"""Names of settings without what all of them share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.charts.names import shorten, without_shared

WORD = st.text("abcr8=._-/ 3B", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("names", "short", "shared"),
    [
        (["fft", "lora_r8", "qlora_r8"], ["fft", "lora_r8", "qlora_r8"], []),
        (["lora/llama-3.2-3B-rank32", "ia3/llama-3.2-3B-default"], ["lora/rank32", "ia3/default"], ["llama-3.2-3B"]),
        (["lora r=8 learning_rate=0.1", "lora r=16 learning_rate=0.1"], ["r=8", "r=16"], ["learning_rate=0.1", "lora"]),
        (["a_very_long_base fft", "a_very_long_base lora"], ["fft", "lora"], ["a_very_long_base"]),
        (["a long name of a model", "a long name of a model x"],
         ["a long name of a model", "a long name of a model x"], []),
        (["the only one, and a long one"], ["the only one, and a long one"], []),
    ],
)  # fmt: skip
def test_shared_words_are_left_out(names: list[str], short: list[str], shared: list[str]):
    found = without_shared(names)
    assert list(found.names.values()) == short
    assert found.shared == shared


@settings(deadline=None)
@given(st.lists(WORD, min_size=1, max_size=8, unique=True))
def test_short_names_differ_as_the_names_do_and_are_made_of_their_letters(names: list[str]):
    found = without_shared(names).names
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    for name, short in found.items():
        letters = iter(name)
        assert all(letter in letters for letter in short)  # in their order


def test_the_middle_of_a_long_name_goes():
    assert shorten("short") == "short"
    assert len(shorten("x" * 50)) == 32
    assert shorten("begin" + "x" * 50 + "end").startswith("begin")
