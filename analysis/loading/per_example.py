"""Per-example results of runs, side by side: what paired tests need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyarrow import ArrowException, parquet
from tqdm import tqdm

from analysis.loading import corpus_metrics
from sweep.core.errors import UserError, alternatives

_SLOW = 50  # runs: reading fewer takes no time that a person would notice
_TOLERANCE = 1e-6  # between a run's score and the same from its examples, relative


class Examples(NamedTuple):
    """`values`: runs × examples. For a corpus metric, `statistics`: runs × examples × statistics instead, with their
    `names` and the `rule` that turns their sums into the score. `groups` numbers each example's group from 0, where
    examples belong together, such as several questions on one passage."""

    run_ids: list[str]
    n: int
    values: np.ndarray | None = None
    statistics: np.ndarray | None = None
    names: tuple[str, ...] = ()
    rule: corpus_metrics.Rule | None = None
    groups: np.ndarray | None = None

    @property
    def units(self) -> int:
        """How many groups there are, or examples where each is for itself."""
        return self.n if self.groups is None else int(self.groups.max()) + 1

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """The score of each run when example i counts `weights[b, i]` times: resamples × runs."""
        if self.values is not None:
            return weights @ self.values.T / weights.sum(axis=1, keepdims=True)
        assert self.statistics is not None
        assert self.rule is not None
        runs, n, count = self.statistics.shape
        flat = np.ascontiguousarray(self.statistics.transpose(1, 0, 2)).reshape(n, runs * count)
        sums = (weights @ flat).reshape(len(weights), runs, count)
        return self.rule.formula({name: sums[:, :, i] for i, name in enumerate(self.names)})

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray]) -> Examples:
        """From scores that are means over examples: run id → one value per example."""
        stacked = np.stack(list(values.values()))
        return cls(list(values), stacked.shape[1], values=stacked)


class Absent(NamedTuple):
    """Why there are no per-example results to use, in words for a person."""

    reason: str


def read(
    scores: Mapping[str, float],
    metric: str,
    rule_tag: str | None,
    find: Callable[[str], Path | None],
    cluster: str | None = None,
) -> Examples | Absent:
    """The per-example results of the runs in `scores` (run id → its score); `find` gives a run's file, or None.

    They are of use only where every run has them, over the same examples, and where they make up the score: its mean is
    the score, or a corpus rule gives it. `cluster` is the column whose equal values mark examples that belong together.

    Raises:
        UserError: where `cluster` is no column of them.
    """
    rule = corpus_metrics.rule_of(rule_tag)
    if rule_tag and rule is None:
        return Absent(f"the way in which {metric} follows from its examples ({rule_tag}) is not known here")
    rows: list[dict[str, np.ndarray]] = []
    first_index: np.ndarray | None = None
    quiet = len(scores) < _SLOW or not sys.stderr.isatty()
    for run_id in tqdm(scores, desc="reading examples", unit=" runs", leave=False, disable=quiet):
        found = _columns(find(run_id), metric, rule is not None)
        if isinstance(found, Absent):
            return found
        index, columns = found
        if first_index is None:
            first_index = index
        elif not np.array_equal(index, first_index):
            return Absent("the runs were not validated on the same examples")
        rows.append(columns)
    if first_index is None or not len(first_index):
        return Absent("no run has per-example results")
    # A label that a run never met has no column there: it counts 0.
    names = tuple(dict.fromkeys(name for columns in rows for name in columns))
    nothing = np.zeros(len(first_index))
    stacked = np.stack([np.column_stack([columns.get(name, nothing) for name in names]) for columns in rows])
    run_ids = list(scores)
    if rule is None:
        made = Examples(run_ids, stacked.shape[1], values=stacked[:, :, 0])
    else:
        made = Examples(run_ids, stacked.shape[1], statistics=stacked, names=names, rule=rule)
    if cluster is not None:
        made = made._replace(groups=_groups(find(run_ids[0]), cluster))
    return _checked(made, scores, metric)


def _groups(path: Path | None, cluster: str) -> np.ndarray:
    """In order of the index, as the values are."""
    assert path is not None  # it was read
    table = parquet.read_table(path)
    if cluster not in table.column_names:
        raise UserError(
            f"cluster = {cluster}: the per-example results have no such column; "
            f"{alternatives(cluster, table.column_names)}"
        )
    values = pd.Series(table[cluster].to_pylist())
    if "index" in table.column_names:
        values = values.iloc[np.argsort(table["index"].to_numpy(), kind="stable")]
    return pd.factorize(values.astype(str))[0]


def _checked(made: Examples, scores: Mapping[str, float], metric: str) -> Examples | Absent:
    try:
        again = made.scores(np.ones((1, made.n)))[0]
    except KeyError as error:
        return Absent(f"the statistics of {metric} are not complete ({error.args[0]})")
    told = np.array([scores[run_id] for run_id in made.run_ids])
    if not np.allclose(again, told, rtol=_TOLERANCE, atol=_TOLERANCE):
        return Absent(f"{metric} is not the mean of its per-example values, and no rule says how it follows from them")
    return made


def _columns(path: Path | None, metric: str, of_corpus: bool) -> tuple[np.ndarray, dict[str, np.ndarray]] | Absent:
    """The index, and each column by its name, in order of the index."""
    if path is None:
        return Absent("not every run has per-example results")
    try:
        file = parquet.ParquetFile(path)
        known = file.schema_arrow.names
        wanted = [name for name in known if name.startswith(f"{metric}/")] if of_corpus else [metric]
        if not wanted or any(name not in known for name in wanted):
            return Absent(f"the per-example results have no column for {metric}")
        table = file.read(columns=[*(["index"] if "index" in known else []), *wanted])
        values = {name: table[name].to_numpy().astype(float) for name in wanted}
    except (OSError, ArrowException, ValueError, TypeError) as error:
        return Absent(f"per-example results cannot be read ({path.name}: {error})")
    if not all(np.isfinite(column).all() for column in values.values()):
        return Absent(f"some per-example values of {metric} are missing")
    index = table["index"].to_numpy() if "index" in known else np.arange(table.num_rows)
    order = np.argsort(index, kind="stable")
    return index[order], {name.removeprefix(f"{metric}/"): values[name][order] for name in wanted}
