"""How long it takes from a tracking store to a report, and what it needs.

    python -m benchmarks.report_speed

To reach: a study of 1,000 and of 10,000 runs is read into our table in at most 1.05 of the time that plain
`mlflow.search_runs` takes for the same runs, also where the store holds ten times as many runs of other studies; from
the table to the full report at most 5 s for 1,000 runs, growing linearly, in at most 1 GB; `decide` on 100 settings × 5
seeds × 3,000 examples at most 5 s; `python -m analysis --help` at most 1 s.

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
from sweep.record import Outcome, Record
from sweep.tracking import Store

SEEDS = 5
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options.store)))
        return
    figures: dict[str, Any] = {"help_seconds": _help(), "decide_100x5x3000_seconds": _part("decide", "")["seconds"]}
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
    command = [sys.executable, "-m", "benchmarks.report_speed", "--part", name, "--store", store]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def _read(uri: str) -> dict[str, float]:
    """Alternating, so that both meet the same machine; the median of the pairs' ratios."""
    import mlflow

    from analysis import load

    store = load.Store(uri, "paretune")
    study = store.study("measured")
    mlflow.set_tracking_uri(uri)
    query = f"tags.`{load.PARENT}` = '{study.parent_id}'"

    def plain() -> None:
        found = mlflow.search_runs([store.experiment_id], query, max_results=100_000)
        assert len(found) == len(study.runs)

    pairs = [(_timed(lambda: store.study("measured")), _timed(plain)) for _ in range(REPEATS)]
    return {
        "read_seconds": statistics.median(ours for ours, _ in pairs),
        "plain_search_runs_seconds": statistics.median(theirs for _, theirs in pairs),
        "read_ratio": statistics.median(ours / theirs for ours, theirs in pairs),
    }


def _report(uri: str) -> dict[str, float]:
    from analysis import answer, load, write

    study = load.Store(uri, "paretune").study("measured")
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        made = answer.build(study, 0.99, None, "max_memory_allocated")
        write.write(made, Path(folder, "report"))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"report_seconds": seconds, "report_peak_rss_gb": peak / 2**20, "before_report_rss_gb": before / 2**20}


def _decide(_: str) -> dict[str, float]:
    import numpy as np
    import pandas as pd

    from analysis.decide import decide
    from analysis.evidence import gather
    from analysis.examples import Examples
    from analysis.settings import settings

    values = (np.random.default_rng(0).random((500, 3000)) < 0.8).astype(float)
    runs = pd.DataFrame({"setting": np.repeat([f"s{i}" for i in range(100)], 5), "seed": np.tile(range(5), 100)})
    runs = runs.assign(
        run_id=runs.index.astype(str), variant="v", outcome="ok", reason="", score=values.mean(axis=1), memory=1.0
    )
    examples = Examples.of(dict(zip(runs["run_id"], values, strict=True)))
    return {"seconds": _timed(lambda: decide(settings(runs, "memory"), evidence=gather(runs, examples)))}


PARTS: dict[str, Callable[[str], dict[str, float]]] = {"read": _read, "report": _report, "decide": _decide}


def _help() -> float:
    command = [sys.executable, "-m", "analysis", "--help"]
    return min(_timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(3))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _seed_store(uri: str, folder: Path) -> str:
    """A store with one study of one run, as a study writes it; the id of the run."""
    store = Store(uri, "paretune", str(folder / "artifacts"))
    conditions = {f"train.option_{i}": "a value of a usual length" for i in range(35)}
    parent = store.create_study("source", conditions, {"command": "python -m sweep -m"})
    measured = {"score": 0.8, "max_memory_allocated": 1e9, "train_seconds": 10.0, "tokens_per_second": 1e3}
    measured |= {f"memory/train_part{i}_bytes": 1e6 for i in range(12)}
    facts = {"metric": "exact_match", "direction": "maximize", "memory_source": "cuda_allocator",
             "conditions.values": json.dumps(conditions), **{f"version.lib{i}": "1.2.3" for i in range(8)}}  # fmt: skip
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.OK, study="source", conditions="c", facts=facts,
                    measurements=measured)  # fmt: skip
    row = store.open_run(record, parent.info.run_id, {f"param{i}": "value" for i in range(20)}, {})
    row.close(record, [])
    return row.run_id


def _copy(database: Path, source: str, study: str, count: int) -> None:
    """A study of `count` copies of the run `source`, SEEDS to a setting, scores and memory varied."""
    with sqlite3.connect(database) as connection:
        parent = _clone(connection, _parent_of(connection, source))
        _set(connection, "tags", parent, "study", study)
        for i in range(count):
            run = _clone(connection, source)
            setting = f"setting {i // SEEDS}"
            for key, value in (("mlflow.parentRunId", parent), ("study", study), ("setting", setting),
                               ("variant", f"variant {i // SEEDS % 8}"), ("seed", str(i % SEEDS))):  # fmt: skip
                _set(connection, "tags", run, key, value)
            _set(connection, "latest_metrics", run, "score", 0.5 + 0.4 * (i * 7919 % 1000) / 1000)
            _set(connection, "latest_metrics", run, "max_memory_allocated", 1e9 + i // SEEDS * 1e6)
    connection.close()


def _parent_of(connection: sqlite3.Connection, run: str) -> str:
    query = "select value from tags where run_uuid = ? and key = 'mlflow.parentRunId'"
    return str(connection.execute(query, (run,)).fetchone()[0])


def _clone(connection: sqlite3.Connection, run: str) -> str:
    new = uuid.uuid4().hex
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        names = [row[1] for row in connection.execute(f"pragma table_info({table})")]
        columns = ", ".join(names)
        values = ", ".join("?" if name == "run_uuid" else name for name in names)
        connection.execute(
            f"insert into {table} ({columns}) select {values} from {table} where run_uuid = ?", (new, run)
        )
    return new


def _set(connection: sqlite3.Connection, table: str, run: str, key: str, value: str | float) -> None:
    connection.execute(f"update {table} set value = ? where run_uuid = ? and key = ?", (value, run, key))


if __name__ == "__main__":
    main()
