"""Secrets are masked, and similar text that is not secret stays readable."""

from __future__ import annotations

import logging

import pytest

from sweep.core import redaction


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://user:hunter22@db:5432/x", "postgresql://***@db:5432/x"),
        ("http://token@host/path", "http://***@host/path"),
        ("https://host/x?a=1&access_token=abc&b=2", "https://host/x?a=1&access_token=***&b=2"),
        ("login with hf_abcdefghijklmnopqrstuvwxyzABCDEFGH now", "login with *** now"),
        ("path=/data/hf_checkpoints/model", "path=/data/hf_checkpoints/model"),
        ("postgresql://u:p@ss@w/ord@db/x", "postgresql://***@db/x"),
        ("'postgresql://u:p@h' and 'http://u:q@i'", "'postgresql://***@h' and 'http://***@i'"),
        (
            "hydra.job.env_set.SOME_TOKEN=abc task.max_new_tokens=4",
            "hydra.job.env_set.SOME_TOKEN=*** task.max_new_tokens=4",
        ),
        ("  model.hub_token = abc  unknown key", "  model.hub_token = ***  unknown key"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_text(text: str, clean: str):
    assert redaction.text(text) == clean


def test_values_of_secret_environment_variables_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_API_KEY", "planted-value-1")
    monkeypatch.setenv("PGPASSWORD", "planted-value-2")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "sometimes")
    monkeypatch.setenv("PWD", "/somewhere/else")
    assert redaction.text("in /somewhere/else") == "in /somewhere/else"
    assert redaction.text("a planted-value-1 b planted-value-2 c sometimes") == "a *** b *** c sometimes"


def test_a_tree_is_masked_by_key_and_by_text():
    assert redaction.tree({"password": 12345678, "api_keys": ["a"], "token": None}) == {
        "password": "***", "api_keys": "***", "token": None,
    }  # fmt: skip
    tree = {"hub_token": "abc", "n": 1, "list": ["http://u:p@h"], "max_new_tokens": 5, "token_accuracy": {"x": "y"}}
    clean = {"hub_token": "***", "n": 1, "list": ["http://***@h"], "max_new_tokens": 5, "token_accuracy": {"x": "y"}}
    assert redaction.tree(tree) == clean


def test_log_lines_are_masked_with_their_arguments_and_tracebacks():
    try:
        raise ValueError("http://u:secretpass@h")
    except ValueError as error:
        record = logging.LogRecord(
            "x", 20, "f", 1, "uri %s", ("http://u:otherpass@h",), (ValueError, error, error.__traceback__)
        )
    line = redaction.Formatter("%(message)s").format(record)
    assert "secretpass" not in line
    assert "otherpass" not in line
    assert "ValueError" in line
