"""The preparation of runs: once per model, and without credentials in the child."""

from __future__ import annotations

import pytest
from conftest import compose

from sweep.launch import preparation
from sweep.processes import isolated_call

SECRET = "planted-secret"


def test_runs_of_one_model_are_prepared_once_and_without_credentials(monkeypatch: pytest.MonkeyPatch):
    received: list[dict] = []

    def call(target: str, config: dict, **options: object) -> dict[str, str]:
        received.append(config)
        return {"steps": str(config["model"]["pretrain_steps"])}

    monkeypatch.setattr(isolated_call, "call", call)
    uri = f"tracking.uri=http://me:{SECRET}@127.0.0.1:9"
    first, longer = (compose(uri, f"train.max_steps={steps}", "model.pretrain_steps=98765") for steps in (6, 7))
    other = compose(uri, "model.pretrain_steps=98766")
    assert preparation.prepare(first) == preparation.prepare(longer) == {"steps": "98765"}
    assert preparation.prepare(other) == {"steps": "98766"}
    assert len(received) == 2
    assert SECRET in str(first)
    assert SECRET not in str(received)
