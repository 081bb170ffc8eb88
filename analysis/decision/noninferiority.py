"""The verdict on each setting: `meets`, `fails` or `inconclusive`, whichever setting is truly the best.

**The claim.** A setting k meets the threshold t when its true score (over seeds and over examples like the validation
ones) is at least t times that of *every* setting j, the true best among them, whichever that is. Each pair (k, j) has a
contrast c = score_k − t · score_j, or with an absolute margin c = score_k − score_j + margin, and k meets where all its
contrasts are at least 0. Where lower scores are better, c = score_j / t − score_k.

**The noise of a contrast** has two sources, and both count (Miller 2024, arXiv 2411.00640; Dodge et al. 2020, arXiv
2002.06305). *Examples*: all settings answer the same ones, so the variance is that of the paired difference per
example, averaged over seeds first, since the same example under two seeds is not two examples (a cluster). *Seeds*: the
variance of run means over seeds, divided by their number. A setting's own variance over 2 or 3 seeds is nearly unknown,
so it is pooled over all settings that are near the threshold; where a setting's own is larger, its own counts. The
noise of single answers is in both and is taken out of one (two-way clustering: Cameron, Gelbach & Miller 2011). The
quotient is read against Student's t with Satterthwaite's degrees of freedom (1946): a normal would make three seeds
look like many. Examples that belong together (several questions on one passage) count as one where the runs name their
groups.

**Winner's curse.** The observed best is the best partly by luck, and a test against it alone would call good settings
failing. Nothing here is conditioned on who looks best. `meets` needs every contrast of k to be positive: an
intersection-union test (Berger 1982), for which the largest of the p-values is valid without correction. `fails` needs
one contrast to be negative, any one: its p-values are joined by Simes (1986), which pays for looking at all rivals.
Together these are multiple comparisons with the best in the sense of Hsu (1984, Annals of Statistics 12:1136).

**Multiplicity.** Over the settings of a study, `meets` and `fails` are each kept at a false share of LEVEL by the two
stages of Benjamini, Krieger & Yekutieli (2006), which count the hypotheses that may still be true. Nothing is paid for
what is not in doubt: a setting, or a rival, on the far side of the threshold (p > ASIDE) is laid aside and the other
p-values are divided by ASIDE (Ellis, Pecanka & Goeman 2020); and one setting, the best, meets the threshold by
definition.

**What is not covered.** `benchmarks/decision/calibration.py` measures the false shares on simulated studies with known
truth, and `benchmarks/decision/shapes.py` on shapes chosen to be hard. More than 5% of the verdicts can be false where
the best setting's scores spread ten times as much over seeds as those of all others and there are two seeds only: two
seeds that agree by chance look like no noise, and nothing in the data shows it. The same holds for examples that depend
on one another in a way that is not named (`cluster=`). Without per-example results the luck of the validation examples
is not seen: the level is halved then, but where seeds hardly differ the verdicts are about these examples, and about
all such examples a fifth of them can be false. And where no setting but one meets the threshold, or none fails it, so
that only an error can be called so, some calls are errors: rare ones, at most 5% of such studies have any.

**One seed per setting** gives no information on the noise between seeds. The noise is then assumed to be large
(ASSUMED_SD of the best score), so that only what is far from the threshold gets a verdict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.decision.score_noise import ScoreNoise
from analysis.decision.threshold import Rule

MEETS, FAILS, INCONCLUSIVE = "meets", "fails", "inconclusive"
LEVEL = 0.05
ASIDE = 0.95
# Of the best score: the standard deviation over seeds that is assumed where nothing is known of it. Published reruns of
# Llama-3.2-3B on GSM8K differ by 1.1% of the score, small models on small data by several.
ASSUMED_SD = 0.03
_NEAR = 0.1  # of the best score: settings as near as this to it pool their variance over seeds


class Contrasts(NamedTuple):
    """Matrices over settings k (rows) and rivals j (columns): `value` is positive where k is good enough against j.

    `seed_variance` is what seeds add to the examples' noise; `observed_variance` is that of run means as they are seen,
    which the noise of single answers is in. `seed_df` degrees of freedom are behind it."""

    value: np.ndarray
    example_variance: np.ndarray
    seed_variance: np.ndarray
    observed_variance: np.ndarray
    seed_df: float

    @property
    def variance(self) -> np.ndarray:
        return self.example_variance + self.seed_variance


class Verdicts(NamedTuple):
    """Per setting, in the noise's order; `rival` is the column of the one that stands in the way of a verdict."""

    verdict: np.ndarray
    p_meets: np.ndarray
    p_fails: np.ndarray
    rival: np.ndarray
    level_meets: float
    level_fails: float
    contrasts: Contrasts


def verdicts(noise: ScoreNoise, rule: Rule, level: float = LEVEL) -> Verdicts:
    """The verdict on every setting of the noise."""
    count = len(noise.scores)
    made = contrasts(noise, rule)
    if noise.own_variance is None:
        level /= 2  # a part of the noise is not seen
    if count == 1:
        none = np.zeros(1)
        return Verdicts(np.array([MEETS]), none, none + 1, np.array([0]), level, level, made)
    freedom = _satterthwaite(made, noise.n_examples)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.nan_to_num(made.value / np.sqrt(made.variance))
    below = stats.t.sf(quotient, freedom)  # of seeing this where k is not good enough against j
    above = stats.t.cdf(quotient, freedom)
    itself = (noise.rivals, np.arange(len(noise.rivals)))
    below[itself], above[itself], quotient[itself] = 0.0, 1.0, np.inf
    p_meets = below.max(axis=1)
    p_fails = _simes(above, count)
    meets, level_meets = _rejected(p_meets, level, known=1)
    fails, level_fails = _rejected(p_fails, level)
    verdict = np.where(meets, MEETS, np.where(fails, FAILS, INCONCLUSIVE))
    return Verdicts(verdict, p_meets, p_fails, quotient.argmin(axis=1), level_meets, level_fails / (count - 1), made)


def contrasts(noise: ScoreNoise, rule: Rule) -> Contrasts:
    """Estimate and variance of every contrast."""
    gain = noise.scores if rule.higher_is_better else -noise.scores
    weight, rivals = rule.weight, noise.rivals
    value = gain[:, None] - weight * gain[None, rivals] + rule.offset
    variance, observed, freedom = seed_variances(noise, rule)

    def of_pairs(of_a_run: np.ndarray) -> np.ndarray:
        of_a_mean = of_a_run / noise.seeds
        return of_a_mean[:, None] + weight**2 * of_a_mean[None, rivals]

    seed_part, seen = of_pairs(variance), of_pairs(observed)
    own, covariance = noise.own_variance, noise.covariance
    if own is None or covariance is None or noise.n_examples is None:
        return Contrasts(value, np.zeros_like(seed_part), seed_part, seen, freedom)
    example_part = own[:, None] + weight**2 * own[None, rivals] - 2 * weight * covariance
    # One more example on which the two differ: none in a sample does not mean none at all.
    example_part = np.maximum(example_part, 0.0) + (noise.unit / noise.n_examples) ** 2
    return Contrasts(value, example_part, seed_part, seen, freedom)


def seed_variances(noise: ScoreNoise, rule: Rule) -> tuple[np.ndarray, np.ndarray, float]:
    """Variance of one run over seeds, per setting: without the noise of single answers, and as it is seen; and the
    degrees of freedom behind it (infinite where assumed)."""
    scores, seeds, own = noise.scores, noise.seeds, noise.seed_sd**2
    best = scores.max() if rule.higher_is_better else scores.min()
    near = np.abs(scores - best) <= max(_NEAR * abs(best), 3 * abs(best - rule.score_threshold(best)))
    answers = np.zeros(len(scores)) if noise.answer_variance is None else noise.answer_variance
    for pool in (near & (seeds > 1), seeds > 1):
        weight = (seeds[pool] - 1) / max(1, (seeds[pool] - 1).sum())
        if own[pool].any():
            seen, without = (own[pool] * weight).sum(), ((own - answers)[pool] * weight).sum()
            freedom = float((seeds[pool] - 1).sum())
            return np.fmax(own - answers, max(0.0, without)), np.fmax(own, seen), freedom
    assumed = np.full(len(scores), (ASSUMED_SD * best) ** 2 if best else np.inf)
    if noise.covariance is not None and (seeds > 1).any():
        assumed = np.zeros(len(scores))  # replicates that agree to the last digit: the examples' noise remains
    return assumed, assumed, np.inf


def _satterthwaite(made: Contrasts, n_examples: int | None) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        examples = made.example_variance**2 / max(1, (n_examples or 2) - 1)
        seeds = made.observed_variance**2 / made.seed_df
        freedom = made.variance**2 / (examples + seeds)
    return np.where(np.isfinite(freedom) & (freedom > 0), freedom, 1e9)


def _simes(p: np.ndarray, count: int) -> np.ndarray:
    """Each row's p-values joined: is any of its hypotheses false? Those above ASIDE are not. Of `count` settings all
    that are not columns, since they cannot be the best, count as rivals that may be."""
    order = np.arange(1, p.shape[1] + 1)
    kept = (p <= ASIDE).sum(axis=1, keepdims=True)
    hidden = count - p.shape[1]
    joined = np.where(order <= kept, np.sort(p, axis=1) * (kept + hidden) / order, ASIDE).min(axis=1)
    return np.minimum(1.0, joined / ASIDE)


def _rejected(p: np.ndarray, level: float, known: int = 0) -> tuple[np.ndarray, float]:
    """Which hypotheses are rejected, and the p-value that the next one would have to reach; `known` of them are false
    for sure, though not which."""
    rejected = p <= ASIDE
    count = int(rejected.sum())
    if not count:
        return rejected, level / len(p)
    adjusted = stats.false_discovery_control(p[rejected] / ASIDE)
    level /= 1 + level
    perhaps_true = max(1, count - known)
    perhaps_true = max(1, min(perhaps_true, count - int((adjusted <= level * count / perhaps_true).sum())))
    rejected[rejected] = adjusted <= level * count / perhaps_true
    return rejected, ASIDE * level / perhaps_true * min(int(rejected.sum()) + 1, count)
