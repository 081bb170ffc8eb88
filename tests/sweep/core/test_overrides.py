"""What is printed for a shell comes back through the shell and Hydra as the same value."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sweep.core.overrides import shell_override

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def read_back(text: str) -> Any:
    """As a shell, Hydra and OmegaConf read it."""
    [argument] = shlex.split(text)
    return OmegaConf.create({"k": OverridesParser.create().parse_override(argument).value()})["k"]


@settings(deadline=None)
@given(TEXT)
@example('exp/ü "x" #1 100%')
@example("results (1).csv")
@example("été 2026.csv")
@example("\\")
@example('a\\"')
@example("it's ${x}")
@example("[a,b]")
@example("null")
@example("007")
@example("1e3")
@example(" ")
def test_a_text_comes_back_as_it_is(text: str):
    assert str(read_back(shell_override("k", text))) == text


@pytest.mark.parametrize("value", [None, True, 3, 0.1, 1e-05, 123456789.5, ["q_proj", "a b"], {"a": [1, "x y"]}])
def test_other_values_come_back_as_they_are(value: Any):
    assert read_back(shell_override("k", value)) == value


def test_a_plain_name_has_no_quotes():
    assert shell_override("study", "my-study_2.0/x") == "study=my-study_2.0/x"
    assert shell_override("study", "my study") == "'study=\"my study\"'"
    assert shell_override("allow_different", ["device"]) == "'allow_different=[device]'"
