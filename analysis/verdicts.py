"""What the data support: for each setting `meets`, `fails` or `cannot_tell`, against whichever setting is the best.

**The claim.** A setting k meets the threshold t when its true score (over seeds and over examples like the validation
ones) is at least t times that of *every* setting j, the true best among them, whichever that is. Each pair (k, j) has a
contrast c = score_k − t · score_j, or with an absolute margin c = score_k − score_j + margin, and k meets where all its
contrasts are at least 0. Where lower scores are better, c = score_j / t − score_k.

**The noise of a contrast** has two sources, and both count (Miller 2024, arXiv 2411.00640; Dodge et al. 2020, arXiv
2002.06305). *Examples*: all settings answer the same ones, so the variance is that of the paired difference per
example, averaged over seeds first, since the same example under two seeds is not two examples (a cluster). *Seeds*: the
variance of run means over seeds, divided by their number. A setting's own variance over 2 or 3 seeds is nearly unknown,
so it is pooled over all settings that are near the bar; where a setting's own is larger, its own counts. The noise of
single answers is in both and is taken out of one (two-way clustering: Cameron, Gelbach & Miller 2011). The quotient is
read against Student's t with Satterthwaite's degrees of freedom (1946): a normal would make three seeds look like many.

**Winner's curse.** The observed best is the best partly by luck, and a test against it alone would call good settings
failing. Nothing here is conditioned on who looks best. `meets` needs every contrast of k to be positive: an
intersection-union test (Berger 1982), for which the largest of the p-values is valid without correction. `fails` needs
one contrast to be negative, any one: its p-values are joined by Simes (1986), which pays for looking at all rivals.
Together these are multiple comparisons with the best in the sense of Hsu (1984, Annals of Statistics 12:1136).

**Multiplicity.** Over the settings of a study, `meets` and `fails` are each kept at a false share of LEVEL by Benjamini
& Hochberg (1995). `benchmarks/decision_calibration.py` measures the shares on simulated studies with known truth.

**One seed per setting** says nothing of the noise between seeds. It is then assumed to be large (ASSUMED_SD of the best
score), so that only what is far from the bar gets a verdict.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.evidence import Evidence
from analysis.rule import Rule

MEETS, FAILS, CANNOT_TELL = "meets", "fails", "cannot_tell"
LEVEL = 0.05
# Of the best score: the standard deviation over seeds that is assumed where nothing is known of it. Published reruns of
# Llama-3.2-3B on GSM8K differ by 1.1% of the score, small models on small data by several.
ASSUMED_SD = 0.03
_NEAR = 0.1  # of the best score: settings as near as this to it pool their variance over seeds


class Contrasts(NamedTuple):
    """Matrices over settings k (rows) and rivals j (columns): `value` is positive where k is good enough against j."""

    value: np.ndarray
    example_variance: np.ndarray
    seed_variance: np.ndarray
    seed_df: float

    @property
    def variance(self) -> np.ndarray:
        return self.example_variance + self.seed_variance


class Verdicts(NamedTuple):
    """Per setting, in the evidence's order; `rival` is the column of the one that stands in the way of a verdict."""

    verdict: np.ndarray
    p_meets: np.ndarray
    p_fails: np.ndarray
    rival: np.ndarray
    level_meets: float
    level_fails: float
    contrasts: Contrasts


def verdicts(evidence: Evidence, rule: Rule, level: float = LEVEL) -> Verdicts:
    """The verdict on every setting of the evidence."""
    count = len(evidence.scores)
    made = contrasts(evidence, rule)
    if count == 1:
        none = np.zeros(1)
        return Verdicts(np.array([MEETS]), none, none + 1, np.array([0]), level, level, made)
    freedom = _satterthwaite(made, evidence.n_examples)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.nan_to_num(made.value / np.sqrt(made.variance))
    below = stats.t.sf(quotient, freedom)  # of seeing this where k is not good enough against j
    above = stats.t.cdf(quotient, freedom)
    itself = (evidence.rivals, np.arange(len(evidence.rivals)))
    below[itself], above[itself], quotient[itself] = 0.0, 1.0, np.inf
    p_meets = below.max(axis=1)
    # Simes; all settings count as rivals, though those that cannot be the best are not looked at.
    p_fails = np.minimum(1.0, (np.sort(above, axis=1) * (count - 1) / np.arange(1, above.shape[1] + 1)).min(axis=1))
    meets, level_meets = _benjamini_hochberg(p_meets, level)
    fails, level_fails = _benjamini_hochberg(p_fails, level)
    verdict = np.where(meets, MEETS, np.where(fails, FAILS, CANNOT_TELL))
    return Verdicts(verdict, p_meets, p_fails, quotient.argmin(axis=1), level_meets, level_fails / (count - 1), made)


def contrasts(evidence: Evidence, rule: Rule) -> Contrasts:
    """Estimate and variance of every contrast."""
    gain = evidence.scores if rule.higher_is_better else -evidence.scores
    weight, rivals = rule.weight, evidence.rivals
    value = gain[:, None] - weight * gain[None, rivals] + rule.offset
    variance, freedom = seed_variances(evidence, rule)
    per_mean = variance / evidence.seeds
    seed_part = per_mean[:, None] + weight**2 * per_mean[None, rivals]
    own, covariance = evidence.own_variance, evidence.covariance
    if own is None or covariance is None or evidence.n_examples is None:
        return Contrasts(value, np.zeros_like(seed_part), seed_part, freedom)
    example_part = own[:, None] + weight**2 * own[None, rivals] - 2 * weight * covariance
    # One more example on which the two differ: none in a sample does not mean none at all.
    example_part = np.maximum(example_part, 0.0) + (evidence.unit / evidence.n_examples) ** 2
    return Contrasts(value, example_part, seed_part, freedom)


def seed_variances(evidence: Evidence, rule: Rule) -> tuple[np.ndarray, float]:
    """Variance of one run over seeds, per setting, and the degrees of freedom behind it (infinite where assumed)."""
    scores, seeds, own = evidence.scores, evidence.seeds, evidence.seed_sd**2
    best = scores.max() if rule.higher_is_better else scores.min()
    near = np.abs(scores - best) <= max(_NEAR * abs(best), 3 * abs(best - rule.bar(best)))
    answers = np.zeros(len(scores)) if evidence.answer_variance is None else evidence.answer_variance
    for pool in (near & (seeds > 1), seeds > 1):
        freedom = (seeds[pool] - 1).sum()
        if freedom and own[pool].any():
            pooled = ((own - answers)[pool] * (seeds[pool] - 1)).sum() / freedom
            return np.fmax(own - answers, max(0.0, pooled)), float(freedom)
    if evidence.covariance is not None and (seeds > 1).any():
        return np.zeros(len(scores)), np.inf  # replicates that agree to the last digit: the examples' noise remains
    return np.full(len(scores), (ASSUMED_SD * best) ** 2 if best else np.inf), np.inf


def _satterthwaite(made: Contrasts, n_examples: int | None) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        examples = made.example_variance**2 / max(1, (n_examples or 2) - 1)
        seeds = made.seed_variance**2 / made.seed_df
        freedom = made.variance**2 / (examples + seeds)
    return np.where(np.isfinite(freedom) & (freedom > 0), freedom, 1e9)


def _benjamini_hochberg(p: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    """Which are rejected, and the p-value that the next one would have to reach."""
    rejected = stats.false_discovery_control(p) <= level
    return rejected, level * min(int(rejected.sum()) + 1, len(p)) / len(p)
