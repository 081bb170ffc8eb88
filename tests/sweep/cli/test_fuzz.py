"""Random overrides: the check accepts them or refuses them with a message, and never raises another error."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sweep.cli import validation
from sweep.cli.validation import validate
from sweep.core.errors import ConfigError

KEYS = st.sampled_from(
    [
        "seed",
        "model",
        "task",
        "variant",
        "train",
        "tracking",
        "experiment",
        "model.path",
        "model.dtype",
        "model.hidden_size",
        "model.cache",
        "task.score",
        "task.data",
        "task.data.n_train",
        "task.data._target_",
        "data@task.data",
        "task.metrics",
        "task.metrics.exact_match",
        "variant.r",
        "variant.alpha",
        "variant.name",
        "variant.learning_rate",
        "variant.target_modules",
        "variant._target_",
        "train.max_steps",
        "train.micro_batch_size",
        "train.precision",
        "train.warmup_ratio",
        "train.optimizer",
        "train.activation_checkpointing",
        "tracking.uri",
        "study",
        "study.name",
        "study.swept",
        "study.trial",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "hydra.sweeper.params",
        "hydra.sweeper.storage",
        "hydra.job.name",
        "hydra.mode",
        "hydra/launcher",
        "nothing",
        "train.nothing",
        "variant.r.x",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "-1",
            "8",
            "2.5",
            "1e-3",
            "1e400",
            "nan",
            "inf",
            "true",
            "null",
            "???",
            "[]",
            "{}",
            "[1,2]",
            "{a:1}",
            "a,b",
            "1,2",
            "choice(1,2)",
            "range(1,5)",
            "interval(0,1)",
            "fft",
            "lora_r8",
            "nope",
            "'x'",
            '""',
            "${seed}",
            "${nope}",
            "${oc.env:HOME}",
            "${oc.env:NOPE}",
            "${oc.decode:x}",
            "\\",
            "=",
            "'",
            "(",
            "[1",
            "all-linear",
            "../../etc",
            "sweep.variants.lora.LoRA",
            "os.system",
            "sqlite:///x.db",
            "http://127.0.0.1:9",
            "postgresql://u:p@127.0.0.1:9/x",
            "file:///tmp",
            "MULTIRUN",
            "basic",
            "shuffle(1,2)",
            "glob(*)",
            "sort(3,1)",
        ]
    ),
    st.text(max_size=6),
    st.integers(-(10**12), 10**12).map(str),
)
OVERRIDES = st.one_of(
    st.builds(
        lambda prefix, key, value: f"{prefix}{key}={value}", st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES
    ),
    st.text(max_size=8),
)

pytestmark = pytest.mark.slow


@pytest.mark.long
@settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=4), multirun=st.booleans())
def test_the_check_accepts_overrides_or_explains_their_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], multirun: bool
):
    monkeypatch.chdir(tmp_path)
    arguments = argparse.Namespace(overrides=overrides, multirun=multirun, config_dir=None, config_name=None)
    faults = None  # accepted
    try:
        validation.check(ROOT / "conf", arguments, "config", validate)
    except ConfigError as error:
        faults = error.faults
    assert faults is None or (faults and all(fault.message for fault in faults))
    assert list(tmp_path.iterdir()) == []
