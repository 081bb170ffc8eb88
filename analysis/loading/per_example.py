"""Per-example results of the runs of a study: the input of paired tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyarrow import ArrowException, parquet
from tqdm import tqdm

from sweep.core.errors import UserError, alternatives
from sweep.metrics import CorpusMetric, corpus_metric

_SLOW = 50  # runs; fewer are read so quickly that a progress bar is of no use
_TOLERANCE = 1e-6  # relative difference between a run's score and the score from its examples


class Examples(NamedTuple):
    """The per-example results of some runs, over the same examples."""

    run_ids: list[str]
    n: int  # examples
    values: np.ndarray | None = None  # runs × examples: the metric's values; None for a corpus metric
    statistics: np.ndarray | None = None  # runs × examples × statistics, for a corpus metric
    names: tuple[str, ...] = ()  # of the statistics
    corpus: CorpusMetric | None = None  # turns the sums of the statistics into a score
    groups: np.ndarray | None = None  # each example's group, from 0, if some belong together (questions on one passage)

    @property
    def units(self) -> int:
        """The number of groups; without groups, the number of examples."""
        return self.n if self.groups is None else int(self.groups.max()) + 1

    def places(self, runs: pd.DataFrame) -> list[int]:
        """The place of each row of `runs` among the runs of these examples."""
        position = {run_id: i for i, run_id in enumerate(self.run_ids)}
        return [position[run_id] for run_id in runs["run_id"]]

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """The score of each run where example i counts `weights[b, i]` times: resamples × runs."""
        if self.values is not None:
            return weights @ self.values.T / weights.sum(axis=1, keepdims=True)
        assert self.statistics is not None
        assert self.corpus is not None
        runs, n, count = self.statistics.shape
        flat = np.ascontiguousarray(self.statistics.transpose(1, 0, 2)).reshape(n, runs * count)
        sums = (weights @ flat).reshape(len(weights), runs, count)
        return self.corpus.from_sums({name: sums[:, :, i] for i, name in enumerate(self.names)})

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray]) -> Examples:
        """From scores that are means over examples: run id → one value per example."""
        stacked = np.stack(list(values.values()))
        return cls(list(values), stacked.shape[1], values=stacked)


class Absent(NamedTuple):
    """There are no per-example results to use. `reason` states why."""

    reason: str


def read(
    scores: Mapping[str, float],
    metric: str,
    corpus_tag: str | None,
    find: Callable[[str], Path | None],
    cluster: str | None = None,
    packages: Collection[str] = (),
) -> Examples | Absent:
    """The per-example results of runs.

    They can be used only where every run has them, over the same examples, and where the score follows from them: as
    the mean of the values, or by the formula of a corpus metric.

    Args:
        scores: run id → its score.
        metric: The name of the score's metric.
        corpus_tag: The tag `corpus.<metric>` of the runs, which names the class of a corpus metric; None for a mean.
        find: Gives the file of a run's per-example results, or None.
        cluster: The column whose equal values mark examples that belong together.
        packages: Those whose corpus metrics the tag may name, besides ours.

    Raises:
        UserError: where there is no column `cluster`.
    """
    corpus = None
    if corpus_tag:
        try:
            corpus = corpus_metric(corpus_tag, packages)
        except ValueError as error:
            return Absent(f"the corpus metric {metric} could not be built from its tag {corpus_tag} ({error})")
    rows: list[dict[str, np.ndarray]] = []
    first_index: np.ndarray | None = None
    hidden = len(scores) < _SLOW or not sys.stderr.isatty()
    for run_id in tqdm(scores, desc="reading examples", unit=" runs", leave=False, disable=hidden):
        found = _columns(find(run_id), metric, corpus is not None)
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
    # A run has no column for a label that did not occur in it: the label counts 0.
    names = tuple(dict.fromkeys(name for columns in rows for name in columns))
    zeros = np.zeros(len(first_index))
    stacked = np.stack([np.column_stack([columns.get(name, zeros) for name in names]) for columns in rows])
    run_ids = list(scores)
    if corpus is None:
        examples = Examples(run_ids, stacked.shape[1], values=stacked[:, :, 0])
    else:
        examples = Examples(run_ids, stacked.shape[1], statistics=stacked, names=names, corpus=corpus)
    if cluster is not None:
        examples = examples._replace(groups=_groups(find(run_ids[0]), cluster))
    return _checked(examples, scores, metric)


def _groups(path: Path | None, cluster: str) -> np.ndarray:
    """The group of each example, in order of the index, as the values are."""
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


def _checked(examples: Examples, scores: Mapping[str, float], metric: str) -> Examples | Absent:
    """The examples, if the runs' scores follow from them."""
    all_twice = np.ones((2, examples.n))  # two equal sets: a formula that takes single numbers only fails here
    try:
        computed = examples.scores(all_twice)
    except Exception as error:  # noqa: BLE001  a metric from another package may raise anything
        return Absent(f"{metric} could not be computed from its statistics ({type(error).__name__}: {error})")
    logged = np.array([scores[run_id] for run_id in examples.run_ids])
    if not np.allclose(computed, logged, rtol=_TOLERANCE, atol=_TOLERANCE):
        rule = "the mean of its per-example values" if examples.corpus is None else "what its statistics give"
        return Absent(f"{metric} is not {rule}")
    return examples


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
        return Absent(f"per-example results could not be read ({path.name}: {error})")
    if not all(np.isfinite(column).all() for column in values.values()):
        return Absent(f"some per-example values of {metric} are missing")
    index = table["index"].to_numpy() if "index" in known else np.arange(table.num_rows)
    order = np.argsort(index, kind="stable")
    return index[order], {name.removeprefix(f"{metric}/"): values[name][order] for name in wanted}
