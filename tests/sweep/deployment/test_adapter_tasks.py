"""Adapters of another kind of task are refused with the task to give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.core.errors import UserError
from sweep.deployment.adapter_comparison import _require_their_task


def test_adapters_of_a_classification_need_the_task(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"task_type": "SEQ_CLS"}))
    with pytest.raises(UserError, match=r"is for SEQ_CLS, and task is for CAUSAL_LM.*task=classification data@task"):
        _require_their_task([str(tmp_path)], "CAUSAL_LM")
    _require_their_task([str(tmp_path)], "SEQ_CLS")
    _require_their_task([str(tmp_path / "nothing")], "CAUSAL_LM")
