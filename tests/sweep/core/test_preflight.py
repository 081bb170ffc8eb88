"""The driver of a database is checked before a study, with the line that installs it."""

from __future__ import annotations

import pytest

from sweep.core import preflight


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("postgresql+psycopg", "needs the package psycopg: pip install 'psycopg[binary]'"),
        ("postgresql", "pip install 'psycopg2-binary'; or name the newer driver: postgresql+psycopg://"),
        ("mysql+pymysql", "pip install 'pymysql'"),
    ],
)
def test_a_missing_driver_is_a_fault_with_its_package(scheme: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    [fault] = preflight.driver_fault("hydra.sweeper.storage", scheme)
    assert words in fault.message


def test_an_installed_driver_and_a_server_are_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: object())
    assert list(preflight.driver_fault("k", "postgresql+psycopg")) == []
    assert list(preflight.driver_fault("k", "http")) == []
