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

    `by_seed` has the score of each run, settings × seeds, NaN where there is none: runs of equal seed share luck.
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
    by_seed: np.ndarray
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
    """The noise of scored runs (`run_id`, `setting`, `score`, perhaps `seed`, and where scores are shares of so many
    examples, `n_examples`), settings in order of first appearance. Without seeds, the n-th run of each setting is taken
    for one of the same seed."""
    run_of, names = pd.factorize(runs["setting"])
    seed_of = pd.factorize(runs["seed"])[0] if "seed" in runs else None
    settings = [str(name) for name in names]
    if not isinstance(examples, Absent) and examples.values is not None:
        values = examples.values[examples.places(runs)]
        made = from_examples(values, run_of, settings, higher_is_better, examples.groups, seed_of)
        return made._replace(in_groups=examples.groups is not None)
    made = _of_seeds(settings, runs["score"].to_numpy(float), run_of, higher_is_better, seed_of)
    if isinstance(examples, Absent):
        return _with_binomial(made, runs, run_of)._replace(why_not=examples.reason)
    drawn = resampled(examples, _RESAMPLES, np.random.default_rng(rng_seed))[:, examples.places(runs)]
    # Paired bootstrap of a corpus metric: the covariance of the settings' scores over resampled validation sets.
    own, covariance = _covariance(_means_of_settings(drawn.T, run_of, made.seeds), made.rivals)
    return made._replace(
        own_variance=own, covariance=covariance, n_examples=examples.units, in_groups=examples.groups is not None
    )


def from_examples(
    values: np.ndarray,
    run_of: np.ndarray,
    settings: list[str],
    higher_is_better: bool = True,
    groups: np.ndarray | None = None,
    seed_of: np.ndarray | None = None,
) -> ScoreNoise:
    """The noise from scores that are means over examples: `values` is runs × examples, `run_of` each run's setting,
    `groups` the number of each example's group where examples are not independent, `seed_of` the number of each run's
    seed (without it, the n-th run of each setting has the n-th seed)."""
    unit = _unit(values)
    if groups is not None:
        values = _by_group(values, groups)
    n = values.shape[1]
    means = values.mean(axis=1)
    made = _of_seeds(settings, means, run_of, higher_is_better, seed_of)
    seeds = made.seeds
    per_example = _means_of_settings(values, run_of, seeds)
    unexplained = values - per_example[run_of] - (means - made.scores[run_of])[:, None]
    squares = np.bincount(run_of, weights=(unexplained**2).sum(axis=1), minlength=len(settings))
    with np.errstate(divide="ignore", invalid="ignore"):
        answers = np.where(seeds > 1, squares / ((seeds - 1) * max(1, n - 1)), np.nan) / n
    own, covariance = _covariance(per_example, made.rivals)
    return made._replace(
        own_variance=own / n, covariance=covariance / n, n_examples=n, unit=unit, answer_variance=answers
    )


def _of_seeds(
    settings: list[str],
    scores: np.ndarray,
    run_of: np.ndarray,
    higher_is_better: bool,
    seed_of: np.ndarray | None,
) -> ScoreNoise:
    """What the score of each run gives without its examples: means, and the spread over seeds."""
    count = len(settings)
    seeds = np.bincount(run_of, minlength=count)
    means = _mean(scores, run_of, count)
    squares = np.bincount(run_of, weights=(scores - means[run_of]) ** 2, minlength=count)
    with np.errstate(divide="ignore", invalid="ignore"):
        seed_sd = np.where(seeds > 1, np.sqrt(squares / (seeds - 1)), np.nan)
    order = np.argsort(-means if higher_is_better else means, kind="stable")
    if seed_of is None:
        seed_of = pd.Series(run_of).groupby(run_of).cumcount().to_numpy()
    by_seed = np.full((count, int(seed_of.max()) + 1), np.nan)
    by_seed[run_of, seed_of] = scores
    return ScoreNoise(settings, means, seeds, seed_sd, np.sort(order[:MOST_RIVALS]), by_seed)


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


def answers_counted(runs: pd.DataFrame) -> np.ndarray | None:
    """The column `n_examples`, where each score can be the share of right answers among so many; else None."""
    n, scores = runs.get("n_examples"), runs["score"].astype(float)
    return None if n is None or n.isna().any() or scores.min() < 0 or scores.max() > 1 else n.to_numpy(float)


def _with_binomial(made: ScoreNoise, runs: pd.DataFrame, run_of: np.ndarray) -> ScoreNoise:
    """Without per-example results. A score in [0, 1] that is a mean over n examples has a variance of at most
    p·(1-p)/n, reached by right and wrong answers; that settings answer the same examples is then not used."""
    n, scores, count = answers_counted(runs), runs["score"].to_numpy(float), len(made.settings)
    if n is None:
        return made
    variance = _mean(scores * (1 - scores) / n, run_of, count)
    covariance = np.where(np.arange(count)[:, None] == made.rivals[None, :], variance[:, None], 0.0)
    return made._replace(own_variance=variance, covariance=covariance, n_examples=int(n.min()), unit=1.0)


def _covariance(of_settings: np.ndarray, rivals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of settings × observations: the variance of each row, and its covariance with each of the rows `rivals`."""
    centred = of_settings - of_settings.mean(axis=1, keepdims=True)
    below = max(1, of_settings.shape[1] - 1)
    return (centred**2).sum(axis=1) / below, centred @ centred[rivals].T / below


def _means_of_settings(of_runs: np.ndarray, run_of: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Means over the runs of each setting: runs × observations → settings × observations."""
    sums = np.zeros((len(seeds), of_runs.shape[1]))
    np.add.at(sums, run_of, of_runs)
    return sums / seeds[:, None]


def _mean(values: np.ndarray, run_of: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(run_of, weights=values, minlength=count) / np.bincount(run_of, minlength=count)
