"""One study with several coordinators: a real PostgreSQL for Optuna, and a real MLflow server for the runs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from conftest import heed_interrupts
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres, which Debian does not put on the path."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no server answers on port {port}")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of an empty database in a new PostgreSQL, which does not start as root."""
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("PARETUNE_NEEDS_POSTGRES"):
            raise AssertionError("no PostgreSQL on this machine")
        pytest.skip("no PostgreSQL on this machine: apt install postgresql")
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next(name for name in ("postgres", "nobody") if name in known) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="paretune-postgres-"))
    if user:
        shutil.chown(folder, user)
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "paretune", "-A", "trust", "--no-sync"],
            user=user, check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options],
            user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(port, server)
            yield f"postgresql+psycopg://paretune@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)],
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


@pytest.mark.long
def test_two_coordinators_share_a_study_and_repeat_no_run(
    tmp_path: Path, toy: list[str], postgres: str, mlflow_server: str
):
    study = ["-m", "study.name=shared", "variant=fft,lora_r8,ln_tuning", "seed=0,1", *toy, "train.max_steps=2"]
    machines = [tmp_path / "first", tmp_path / "second"]
    running = []
    for machine in machines:
        machine.mkdir()
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "sweep", *study, "tracking=server", f"hydra.sweeper.storage={postgres}"],
                cwd=machine,
                env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=heed_interrupts,
            )
        )
    outputs = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    client = MlflowClient(tracking_uri=mlflow_server)
    experiment = client.get_experiment_by_name("paretune").experiment_id
    rows = client.search_runs([experiment], "tags.kind = 'run'")
    done = Counter((row.data.tags["setting"], row.data.tags["seed"]) for row in rows)
    assert done == Counter({(s, seed): 1 for s in ("fft", "lora_r8", "ln_tuning") for seed in ("0", "1")})
    assert {row.data.tags["outcome"] for row in rows} == {"ok"}
    [parent] = client.search_runs([experiment], "tags.kind = 'study'")
    assert parent.info.status == "FINISHED"
    assert len({row.data.tags["coordinator"] for row in rows}) == 2  # each ran some of them
    storage = optuna.storages.RDBStorage(postgres)
    trials = optuna.load_study(study_name="shared", storage=storage).trials
    storage.engine.dispose()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3


@pytest.mark.long
def test_a_slurm_like_launcher_runs_a_study_in_batches(tmp_path: Path, toy: list[str]):
    """submitit's local executor starts a process per job, and the job starts a process per run."""
    pytest.importorskip("submitit")
    study = [
        "-m",
        "hydra/launcher=submitit_local",
        "study.name=batched",
        "variant=fft",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sweep", *study, *toy, "train.max_steps=2"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("paretune").experiment_id
    rows = client.search_runs([experiment], "tags.kind = 'run'")
    assert [(row.data.tags["setting"], row.data.tags["outcome"]) for row in rows] == [("fft", "ok")]
