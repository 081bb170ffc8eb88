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


FORMS = [
    '{"password": "xx-planted-xx", "n": 1}',
    "{'password': 'xx-planted-xx'}",
    "{'api_key': b'xx-planted-xx'}",
    r'"{\"password\": \"xx-planted-xx\", \"n\": 1}"',
    "password: xx-planted-xx",
    "db:\n  password: xx-planted-xx\n  port: 1",
    "db:\n  passphrase: several words xx-planted-xx\n  port: 1",
    "db={password:xx-planted-xx}",
    "db={user:me,password:xx-planted-xx,port:1}",
    "+db.password=xx-planted-xx",
    "/data/token=xx-planted-xx/train.csv",
    "path=/data/token=xx-planted-xx/train.csv",
    "a=1 b.path='x?y=1' c.secret=xx-planted-xx",
    "Authorization: Bearer xx-planted-xx",
    "{'Authorization': 'Bearer xx-planted-xx'}",
    "authorization: Basic xx-planted-xx",
    "-H 'Authorization: token xx-planted-xx'",
    "curl: sent Bearer xx-planted-xx-1",
    "--api-key=xx-planted-xx",
    "--api-key xx-planted-xx --n 1",
    "--password 'xx-planted-xx'",
    "X-API-Key: xx-planted-xx",
    "https://b.s3/x?X-Amz-Credential=xx-planted-xx&X-Amz-Date=1",
    "https://b.s3/x?X-Amz-Date=1&X-Amz-Signature=xx-planted-xx",
    "https://b.blob/x?sv=1&sig=xx-planted-xx",
    "https://u:xx-planted-xx@host/x",
    "mysql+pymysql://u:xx-planted-xx@host:1/x?y=1",
    "token=xx-planted-xx",
    "hub_token = 'xx-planted-xx'",
    "ValidationError: password='xx-planted-xx' is too short",
    "Settings(user='me', password='xx-planted-xx')",
    'os.environ["DB_PASS"] = "xx-planted-xx"',
    "export SMTP_PASS=xx-planted-xx",
    "AZURE_STORAGE_KEY=xx-planted-xx",
    "https://hooks.slack.com/services/T000/B000/xx-planted-xx",
    "clientSecret: xx-planted-xx",
    "-----BEGIN RSA PRIVATE KEY-----\nxx-planted-xx\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nxx-planted-xx",
]
KNOWN = [  # tokens by their prefix, with the digits that services give
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_0123456789abcdefghijABCDEFGHIJ",
    "glpat-0123456789abcdefghij",
    "sk-0123456789abcdefghijABCDEFGHIJ0123456789",
    "sk-proj-0123456789abcdefghijABCDEFGHIJ0123456789",
    "sk-ant-api03-0123456789abcdefghij",
    "xoxb-0123456789-0123456789-abcdefghij",
    "xoxp-0123456789-abcdefghij",
    "AKIA0123456789ABCDEF",
    "AIza0123456789abcdefghij0123456789abcde",
    "npm_0123456789abcdefghij0123456789abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
]
READABLE = [
    "special token: <pad>",
    "the next token: 5, at most 7 tokens: all of them",
    "pad_token=<pad> eos_token='</s>' max_new_tokens=4 tokenizer=bytes",
    "{'pad_token': '<pad>', 'eos_token_id': 2, 'use_auth': True, 'token': None}",
    "hub_token: null",
    "def login(token: str, password: str = 'x') -> None:"[:24],
    "task.score=token_accuracy train.max_steps=4 'task.data.path=/data/a=b.csv'",
    "sort_key=name, key: value, keys=[a,b]",
    "a basic understanding, and the bearer of it",
    "scikit: sk-learn-contrib-and-more",
    "task-0123456789012345678901234567890",
    "the forward pass: 12 ms; bypass=1",
    "Epoch 3: loss=0.25, tokens_per_second=1234.5",
    "https://huggingface.co/models?search=key&sort=downloads",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef",
    "author: me, authors=[a, b]",
]


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_forms_of_a_secret_are_masked(form: str):
    clean = redaction.text(form)
    assert "planted" not in clean
    assert "***" in clean
    assert redaction.text(clean) == clean


@pytest.mark.parametrize("token", KNOWN)
def test_tokens_of_known_services_are_masked(token: str):
    assert redaction.text(f"login with {token}, then") == "login with ***, then"


@pytest.mark.parametrize("line", READABLE)
def test_what_is_no_secret_stays_readable(line: str):
    assert redaction.text(line) == line


def test_a_password_in_the_url_of_any_variable_is_masked_everywhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:planted/7@db/x")
    monkeypatch.setenv("MY_SECRET", "short1")
    monkeypatch.setenv("MY_PASSWORD", "tiny")  # it occurs in too many words
    assert redaction.text("got planted/7, planted%2F7, short1 and a destiny") == "got ***, ***, *** and a destiny"


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
