"""The databases of a study do not answer for a while: runs go on, nothing is repeated, and the command ends well."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_several_machines import free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]
AWAY_SECONDS = 45  # longer than each database waits by itself
STUDY = ["-m", "study.name=x", "variant=fft,lora_r8", "seed=0,1", "study.predict_memory=false"]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sweep", *STUDY, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.1)


def ended_runs(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder}/optuna.db?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from paretune_run where state = 'ended'").fetchone()[0]
    except sqlite3.Error:  # not there yet
        return 0


def check(uri: str, process: subprocess.Popen) -> None:
    """Exit code 0, no traceback, and one ended row for each run."""
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "Traceback" not in out
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("paretune").experiment_id
    rows = client.search_runs([experiment], "tags.kind = 'run'")
    done = Counter((row.data.tags["setting"], row.data.tags["seed"]) for row in rows)
    assert done == Counter({(variant, seed): 1 for variant in ("fft", "lora_r8") for seed in "01"})
    assert {(row.data.tags["outcome"], row.info.status) for row in rows} == {("ok", "FINISHED")}
    assert all("score" in row.data.metrics for row in rows)


@pytest.mark.parametrize("name", ["optuna.db", "mlflow.db"])
def test_a_database_that_is_locked_ends_no_study(tmp_path: Path, toy: list[str], name: str):
    process = start(tmp_path, *toy)
    wait_until(lambda: ended_runs(tmp_path) >= 1, process)
    lock = sqlite3.connect(tmp_path / name, timeout=60, isolation_level=None)
    lock.execute("begin exclusive")
    time.sleep(AWAY_SECONDS)
    lock.execute("rollback")
    lock.close()
    check(f"sqlite:///{tmp_path}/mlflow.db", process)


def test_a_tracking_server_that_is_away_ends_no_study(tmp_path: Path, toy: list[str]):
    port = free_port()

    def serve() -> subprocess.Popen:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
        stores = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(
            [*command, *stores], cwd=tmp_path, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(port, server)
        return server

    server = serve()
    try:
        process = start(tmp_path, *toy, "tracking=server", f"tracking.uri=http://127.0.0.1:{port}")
        wait_until(lambda: ended_runs(tmp_path) >= 1, process)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        time.sleep(AWAY_SECONDS)
        server = serve()
        check(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
