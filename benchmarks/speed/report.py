"""How long it takes from a tracking store to a report, and what it needs.

    python -m benchmarks.speed.report

To reach: a study of 1,000 and of 10,000 runs is read into our table in at most 1.05 of the time that plain
`mlflow.search_runs` takes for the same runs, also where the store holds ten times as many runs of other studies; from
the table to the full report at most 5 s for 1,000 runs, growing linearly, in at most 1 GB; `decide` on 100 settings × 5
seeds × 3,000 examples at most 10 s; `python -m analysis --help` at most 1 s.

The runs are one real row, copied in the database: writing 110,000 of them through MLflow would take hours.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import save
from sweep.core.record import Outcome, Record
from sweep.tracking.mlflow_store import MlflowStore

SEEDS = 5
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options.store)))
        return
    figures: dict[str, Any] = {
        "help_processor_seconds": _help(),
        "decide_100x5x3000_processor_seconds": _part("decide", "")["processor_seconds"],
    }
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            uri = f"sqlite:///{folder}/mlflow.db"
            source = _seed_store(uri, Path(folder))
            _copy(Path(folder, "mlflow.db"), source, "measured", size)
            figures |= {f"runs_{size}.{key}": value for key, value in _part("read", uri).items()}
            figures |= {f"runs_{size}.{key}": value for key, value in _part("report", uri).items()}
            for other in range(10):
                _copy(Path(folder, "mlflow.db"), source, f"other {other}", size)
            figures |= {f"runs_{size}.among_10x_others.{key}": value for key, value in _part("read", uri).items()}
    save("report_speed", figures)


def _part(name: str, store: str) -> dict[str, float]:
    """In a process of its own: peaks of memory and caches belong to one part."""
    command = [sys.executable, "-m", "benchmarks.speed.report", "--part", name, "--store", store]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def _read(uri: str) -> dict[str, float]:
    """Alternating, so that both meet the same machine; the median of the pairs' ratios."""
    import mlflow

    from analysis.loading.mlflow_store import StudyReader
    from sweep.tracking.mlflow_reader import PARENT

    store = StudyReader(uri, "paretune")
    study = store.study("measured")
    mlflow.set_tracking_uri(uri)
    query = f"tags.`{PARENT}` = '{study.parent_id}'"

    def plain() -> None:
        found = mlflow.search_runs([store.experiment_id], query, max_results=100_000)
        assert len(found) == len(study.runs)

    plain()
    pairs = [(_processor(lambda: store.study("measured")), _processor(plain)) for _ in range(REPEATS)]
    return {
        "read_processor_seconds": statistics.median(ours for ours, _ in pairs),
        "plain_search_runs_processor_seconds": statistics.median(theirs for _, theirs in pairs),
        "read_ratio": statistics.median(ours / theirs for ours, theirs in pairs),
    }


def _report(uri: str) -> dict[str, float]:
    from analysis import pipeline
    from analysis.loading.mlflow_store import StudyReader
    from analysis.reporting import writer

    study = StudyReader(uri, "paretune").study("measured")
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, used = time.perf_counter(), time.process_time()
        made = pipeline.build(study, 0.99, None, "max_memory_allocated")
        writer.write(made, Path(folder, "report"))
        seconds, processor = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "report_seconds": seconds,
        "report_processor_seconds": processor,
        "report_peak_rss_gb": peak / 2**20,
        "before_report_rss_gb": before / 2**20,
    }


def _decide(_: str) -> dict[str, float]:
    import numpy as np
    import pandas as pd

    from analysis.decision.aggregate import settings
    from analysis.decision.score_noise import estimate_noise
    from analysis.decision.selection import decide
    from analysis.loading.per_example import Examples

    values = (np.random.default_rng(0).random((500, 3000)) < 0.8).astype(float)
    runs = pd.DataFrame({"setting": np.repeat([f"s{i}" for i in range(100)], 5), "seed": np.tile(range(5), 100)})
    runs = runs.assign(
        run_id=runs.index.astype(str), variant="v", outcome="ok", reason="", score=values.mean(axis=1), memory=1.0
    )
    examples = Examples.of(dict(zip(runs["run_id"], values, strict=True)))
    return {
        "processor_seconds": _processor(lambda: decide(settings(runs, "memory"), noise=estimate_noise(runs, examples)))
    }


PARTS: dict[str, Callable[[str], dict[str, float]]] = {"read": _read, "report": _report, "decide": _decide}


def _help() -> float:
    """The least of three, in processor time, that of the system included."""
    command = [sys.executable, "-m", "analysis", "--help"]

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        before = used()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(used() - before)
    return min(seconds)


def _processor(work: Callable[[], object]) -> float:
    """Processor seconds: the machine may be busy with something else."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _seed_store(uri: str, folder: Path) -> str:
    """A store with one study of one run, as a study writes it; the id of the run."""
    store = MlflowStore(uri, "paretune", str(folder / "artifacts"))
    conditions = {f"train.option_{i}": "a value of a usual length" for i in range(35)}
    parent = store.create_study("source", conditions, {"command": "python -m sweep -m"})
    measured = {"score": 0.8, "max_memory_allocated": 1e9, "train_seconds": 10.0, "tokens_per_second": 1e3}
    measured |= {f"memory/train_part{i}_bytes": 1e6 for i in range(12)}
    facts = {"metric": "exact_match", "direction": "maximize", "memory_source": "cuda_allocator",
             "conditions": json.dumps(conditions), **{f"version.lib{i}": "1.2.3" for i in range(8)}}  # fmt: skip
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.OK, study="source", conditions_hash="c",
                    facts=facts, measurements=measured)  # fmt: skip
    row = store.open_run(record, parent.info.run_id, {f"param{i}": "value" for i in range(20)}, {})
    row.close(record, [])
    return row.run_id


def _copy(database: Path, source: str, study: str, count: int) -> None:
    """A study of `count` copies of the run `source`, SEEDS to a setting, scores and memory varied."""
    with sqlite3.connect(database) as connection:
        parent = uuid.uuid4().hex
        _clone(connection, _parent_of(connection, source), [parent], {"tags": {"study": _text(study)}})
        tags = {
            "mlflow.parentRunId": _text(parent),
            "study": _text(study),
            "setting": f"'setting ' || (n / {SEEDS})",
            "variant": f"'variant ' || (n / {SEEDS} % 8)",
            "seed": f"n % {SEEDS}",
        }
        metrics = {
            "score": "0.5 + 0.4 * (n * 7919 % 1000) / 1000.0",
            "max_memory_allocated": f"1e9 + n / {SEEDS} * 1e6",
        }
        runs = [uuid.uuid4().hex for _ in range(count)]
        _clone(connection, source, runs, {"tags": tags, "latest_metrics": metrics, "metrics": metrics})
    connection.close()


def _parent_of(connection: sqlite3.Connection, run: str) -> str:
    query = "select value from tags where run_uuid = ? and key = 'mlflow.parentRunId'"
    return str(connection.execute(query, (run,)).fetchone()[0])


def _clone(connection: sqlite3.Connection, run: str, copies: list[str], changed: dict[str, dict[str, str]]) -> None:
    """Copies of all rows of a run. `changed`: table → key → the SQL of its value, in which n is the copy's number."""
    connection.execute("create temp table if not exists copies (id text, n integer)")
    connection.execute("delete from copies")
    connection.executemany("insert into copies values (?, ?)", [(copy, n) for n, copy in enumerate(copies)])
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        names = [row[1] for row in connection.execute(f"pragma table_info({table})")]
        cases = "".join(f" when {_text(key)} then {value}" for key, value in changed.get(table, {}).items())
        values = {"run_uuid": "copies.id"}
        if cases:
            values["value"] = f"case key{cases} else value end"
        picked = ", ".join(values.get(name, f"{table}.{name}") for name in names)
        connection.execute(
            f"insert into {table} ({', '.join(names)}) select {picked} from {table}, copies where {table}.run_uuid = ?",
            (run,),
        )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    main()
