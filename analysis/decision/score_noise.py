"""Each setting's score and its noise, estimated from the runs: the input of the verdicts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.loading.per_example import Absent, Examples

MOST_RIVALS = 200  # so that the work grows with the number of settings, not with its square
_RESAMPLES = 1000
_PART = 0.25
_BLOCK = 100  # resamples at a time: a block of weights, not all of them, is in memory


class ScoreNoise(NamedTuple):
    """Per setting with at least one score: its mean over seeds, how many, and their standard deviation (NaN for one).

    `rivals` are the indices of the settings that may be the best: the MOST_RIVALS best by score. `own_variance` is the
    variance of the settings' mean scores when the validation examples are drawn anew, and `covariance` (settings ×
    rivals) goes with it; both are None where nothing is known of single examples (`why_not` is the reason). `unit` is
    by how much two settings differ on an example on which they differ. `answer_variance` is the part of a run's
    variance that comes from single answers: what differs between seeds on one example, beyond what differs on all.
    `n_examples` counts groups of examples where examples belong together (`in_groups`)."""

    settings: list[str]
    scores: np.ndarray
    seeds: np.ndarray
    seed_sd: np.ndarray
    rivals: np.ndarray
    own_variance: np.ndarray | None = None
    covariance: np.ndarray | None = None
    n_examples: int | None = None
    unit: float = 0.0
    answer_variance: np.ndarray | None = None
    why_not: str = ""
    in_groups: bool = False


def estimate_noise(
    runs: pd.DataFrame, examples: Examples | Absent, higher_is_better: bool = True, rng_seed: int = 0
) -> ScoreNoise:
    """The noise of scored runs (`run_id`, `setting`, `score`, and where scores are shares of so many examples,
    `n_examples`), settings in order of first appearance."""
    run_of, names = pd.factorize(runs["setting"])
    settings = [str(name) for name in names]
    if isinstance(examples, Absent):
        scores = runs["score"].to_numpy(float)
        return _of_means(settings, scores, run_of, runs.get("n_examples"), examples.reason, higher_is_better)
    position = {run_id: i for i, run_id in enumerate(examples.run_ids)}
    order = [position[run_id] for run_id in runs["run_id"]]
    grouped = examples.groups is not None
    if examples.values is not None:
        made = from_examples(examples.values[order], run_of, settings, higher_is_better, examples.groups)
        return made._replace(in_groups=grouped)
    drawn = resampled(examples, _RESAMPLES, np.random.default_rng(rng_seed))[:, order]
    made = _by_resampling(drawn, examples.units, runs["score"].to_numpy(float), run_of, settings, higher_is_better)
    return made._replace(in_groups=grouped)


def from_examples(
    values: np.ndarray,
    run_of: np.ndarray,
    settings: list[str],
    higher_is_better: bool = True,
    groups: np.ndarray | None = None,
) -> ScoreNoise:
    """The noise from scores that are means over examples: `values` is runs × examples, `run_of` each run's setting,
    `groups` the number of each example's group where examples are not independent."""
    unit = _unit(values)
    if groups is not None:
        values = _by_group(values, groups)
    count, n = len(settings), values.shape[1]
    seeds = np.bincount(run_of, minlength=count)
    means = values.mean(axis=1)
    scores = _mean(means, run_of, count)
    rivals = _rivals(scores, higher_is_better)
    per_example = np.zeros((count, n))
    np.add.at(per_example, run_of, values)
    per_example /= seeds[:, None]
    unexplained = values - per_example[run_of] - (means - scores[run_of])[:, None]
    squares = np.bincount(run_of, weights=(unexplained**2).sum(axis=1), minlength=count)
    with np.errstate(divide="ignore", invalid="ignore"):
        answers = np.where(seeds > 1, squares / ((seeds - 1) * max(1, n - 1)), np.nan) / n
    own, covariance = _covariance(per_example.T, rivals)
    return ScoreNoise(
        settings=settings,
        scores=scores,
        seeds=seeds,
        seed_sd=spread(means, run_of, count),
        rivals=rivals,
        own_variance=own / n,
        covariance=covariance / n,
        n_examples=n,
        unit=unit,
        answer_variance=answers,
    )


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One value per group, of the same mean as the examples: the run's mean, and the sum of its group's deviations from
    it on the scale of a group. Their variance over the number of groups is the cluster-robust one (Liang & Zeger 1986).
    """
    means = values.mean(axis=1, keepdims=True)
    count = int(groups.max()) + 1
    sums = np.zeros((count, len(values)))
    np.add.at(sums, groups, (values - means).T)
    return means + sums.T * (count / values.shape[1])


def _unit(values: np.ndarray) -> float:
    """What two settings differ by on an example on which they differ: all of the range for right or wrong, a part of it
    for scores in between."""
    reach = float(np.ptp(values)) or 1.0
    binary = np.isin(values, (values.min(), values.max())).all()
    return reach if binary else _PART * reach


def spread(means: np.ndarray, run_of: np.ndarray, count: int) -> np.ndarray:
    """Standard deviation over the runs of each setting, NaN for one run."""
    seeds = np.bincount(run_of, minlength=count)
    squares = np.bincount(run_of, weights=(means - _mean(means, run_of, count)[run_of]) ** 2, minlength=count)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seeds > 1, np.sqrt(squares / (seeds - 1)), np.nan)


def resampled(examples: Examples, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Each run's score on validation sets drawn from this one, the same sets for all runs: resamples × runs. Examples
    that belong together are drawn together."""
    parts = []
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        drawn = rng.integers(0, examples.units, (size, examples.units))
        weights = np.zeros((size, examples.units))
        np.add.at(weights, (np.arange(size)[:, None], drawn), 1.0)
        parts.append(examples.scores(weights if examples.groups is None else weights[:, examples.groups]))
    return np.concatenate(parts)


def _of_means(
    settings: list[str],
    scores: np.ndarray,
    run_of: np.ndarray,
    n_examples: pd.Series | None,
    why_not: str,
    higher_is_better: bool,
) -> ScoreNoise:
    """Without per-example results. A score in [0, 1] that is a mean over n examples has a variance of at most
    p·(1-p)/n, reached by right and wrong answers; that settings answer the same examples is then not used."""
    count = len(settings)
    means = _mean(scores, run_of, count)
    seeds = np.bincount(run_of, minlength=count)
    rivals = _rivals(means, higher_is_better)
    made = ScoreNoise(settings, means, seeds, spread(scores, run_of, count), rivals, why_not=why_not)
    if n_examples is None or n_examples.isna().any() or scores.min() < 0 or scores.max() > 1:
        return made
    n = n_examples.to_numpy(float)
    variance = _mean(scores * (1 - scores) / n, run_of, count)
    covariance = np.where(np.arange(count)[:, None] == rivals[None, :], variance[:, None], 0.0)
    return made._replace(own_variance=variance, covariance=covariance, n_examples=int(n.min()), unit=1.0)


def _by_resampling(
    drawn: np.ndarray, n: int, scores: np.ndarray, run_of: np.ndarray, settings: list[str], higher_is_better: bool
) -> ScoreNoise:
    """Paired bootstrap of a corpus metric: the covariance of the settings' scores over resampled validation sets
    (`drawn`: resamples × runs)."""
    count = len(settings)
    means = _mean(scores, run_of, count)
    seeds = np.bincount(run_of, minlength=count)
    rivals = _rivals(means, higher_is_better)
    per_setting = np.zeros((count, len(drawn)))
    np.add.at(per_setting, run_of, drawn.T)
    own, covariance = _covariance((per_setting / seeds[:, None]).T, rivals)
    return ScoreNoise(
        settings, means, seeds, spread(scores, run_of, count), rivals, own, covariance, n_examples=n, unit=0.0
    )


def _rivals(scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
    order = np.argsort(-scores if higher_is_better else scores, kind="stable")
    return np.sort(order[:MOST_RIVALS])


def _covariance(observations: np.ndarray, rivals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of each column, and its covariance with each of the columns `rivals`."""
    centred = observations - observations.mean(axis=0)
    below = max(1, len(observations) - 1)
    return (centred**2).sum(axis=0) / below, centred.T @ centred[:, rivals] / below


def _mean(values: np.ndarray, run_of: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(run_of, weights=values, minlength=count) / np.bincount(run_of, minlength=count)
