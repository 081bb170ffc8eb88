"""Scores that are computed from sums over the corpus (BLEU, chrF, F1): the formulas, for many resamples at once.

A run whose tag `corpus.<metric>` names one of RULES has per-example columns `<metric>/<statistic>`. Resampling examples
means summing these anew; the mean of per-example scores would be another metric. Source of the method: Koehn 2004,
"Statistical significance tests for machine translation evaluation".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Sums = Mapping[str, np.ndarray]


class Rule(NamedTuple):
    """`formula` takes the sum of each statistic (arrays of one shape) and gives the score of each resample."""

    name: str
    formula: Callable[[Sums], np.ndarray]


def rule_of(tag: str | None) -> Rule | None:
    """The rule that a tag names, as `"sacrebleu.bleu"` or `{"rule": "sacrebleu.bleu", …}`, or None where unknown."""
    if not tag:
        return None
    try:
        named: Any = json.loads(tag)
    except ValueError:
        named = tag
    name = str(named.get("rule", "")) if isinstance(named, dict) else str(named)
    return Rule(name, RULES[name]) if name in RULES else None


def bleu(sums: Sums) -> np.ndarray:
    """Corpus BLEU in percent as sacrebleu computes it: n-grams of 1 to 4, brevity penalty, "exp" smoothing of orders
    without a match."""
    matches = _family(sums, "match", "correct")
    totals = _family(sums, "total")
    ours = _first(sums, "hyp_len", "sys_len", "candidate_length", "hypothesis_length")
    theirs = _first(sums, "ref_len", "reference_length")
    smooth = np.ones_like(ours, dtype=float)
    logs = np.zeros_like(smooth)
    orders = np.zeros_like(smooth)
    for match, total in zip(matches, totals, strict=True):
        there = total > 0
        smooth = np.where(there & (match == 0), smooth * 2, smooth)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(match > 0, match / total, 1 / (smooth * total))
            logs += np.where(there, np.log(precision), -np.inf)
        orders += 1
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(ours < theirs, np.exp(1 - theirs / ours), 1.0)
        return np.where((ours > 0) & (matches[0] > 0), 100 * penalty * np.exp(logs / orders), 0.0)


def chrf(sums: Sums) -> np.ndarray:
    """Corpus chrF (β = 2) in percent as sacrebleu computes it: precision and recall are averaged over the orders that
    occur on both sides, from n-gram counts."""
    matches, ours, theirs = _family(sums, "match"), _family(sums, "hyp"), _family(sums, "ref")
    precision, recall, orders = (np.zeros_like(matches[0], dtype=float) for _ in range(3))
    for match, hyp, ref in zip(matches, ours, theirs, strict=True):
        there = (hyp > 0) & (ref > 0)
        precision += np.where(there, match / np.maximum(hyp, 1), 0.0)
        recall += np.where(there, match / np.maximum(ref, 1), 0.0)
        orders += there
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    return np.where(precision + recall > 0, 500 * precision * recall / np.maximum(4 * precision + recall, 1e-300), 0.0)


def f1(sums: Sums) -> np.ndarray:
    """2·tp / (2·tp + fp + fn)."""
    double = 2 * sums["tp"]
    below = double + sums["fp"] + sums["fn"]
    return np.where(below > 0, double / np.maximum(below, 1e-300), 0.0)


def macro_f1(sums: Sums) -> np.ndarray:
    """The mean of each label's F1, from `tp_<label>`, `fp_<label>` and `fn_<label>`, over the labels that occur."""
    return _mean_f1(sums, by_support=False)


def weighted_f1(sums: Sums) -> np.ndarray:
    """The same, each label counting by how often it is right."""
    return _mean_f1(sums, by_support=True)


def _mean_f1(sums: Sums, by_support: bool) -> np.ndarray:
    names = [name.removeprefix("tp_") for name in sums if name.startswith("tp_")]
    total = weights = 0.0
    for name in names:
        parts = {part: sums[f"{part}_{name}"] for part in ("tp", "fp", "fn")}
        weight = parts["tp"] + parts["fn"] if by_support else (parts["tp"] + parts["fp"] + parts["fn"] > 0) * 1.0
        total, weights = total + weight * f1(parts), weights + weight
    return np.where(np.asarray(weights) > 0, total / np.maximum(weights, 1e-300), 0.0)


def matthews(sums: Sums) -> np.ndarray:
    """Matthews correlation for any number of labels, from `correct`, and how often each is predicted and true."""
    predicted = [sums[name] for name in sums if name.startswith("predicted_")]
    true = [sums[f"true_{name.removeprefix('predicted_')}"] for name in sums if name.startswith("predicted_")]
    total = sum(true)
    covariance = sums["correct"] * total - sum(p * t for p, t in zip(predicted, true, strict=True))
    spread = (total**2 - sum(p * p for p in predicted)) * (total**2 - sum(t * t for t in true))
    return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1e-300)), 0.0)


def pearson(sums: Sums) -> np.ndarray:
    """Correlation of two numbers x and y, from their sums, those of their squares and products, and the count n."""
    n, x, y = sums["n"], sums["x"], sums["y"]
    spread_x, spread_y = n * sums["xx"] - x * x, n * sums["yy"] - y * y
    varied = (spread_x > 1e-12 * n * sums["xx"]) & (spread_y > 1e-12 * n * sums["yy"])  # beyond rounding
    return np.where(varied, (n * sums["xy"] - x * y) / np.sqrt(np.where(varied, spread_x * spread_y, 1.0)), 0.0)


def perplexity(sums: Sums) -> np.ndarray:
    """exp of the mean negative log-likelihood per token, from `nll` and `tokens`."""
    return np.exp(np.minimum(sums["nll"] / sums["tokens"], 700.0))


def ratio(sums: Sums) -> np.ndarray:
    """Σ numerator / Σ denominator: averages over tokens or words instead of examples."""
    return np.where(sums["denominator"] != 0, sums["numerator"] / np.maximum(sums["denominator"], 1e-300), 0.0)


RULES: Mapping[str, Callable[[Sums], np.ndarray]] = {
    "sacrebleu.bleu": bleu,
    "sacrebleu.chrf": chrf,
    "f1": f1,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "matthews": matthews,
    "pearson": pearson,
    "perplexity": perplexity,
    "ratio": ratio,
}


def _family(sums: Sums, *prefixes: str) -> list[np.ndarray]:
    """match_1, match_2, … in order."""
    for prefix in prefixes:
        keys = [key for key in sums if key.rpartition("_")[0] == prefix and key.rpartition("_")[2].isdigit()]
        if keys:
            return [sums[key] for key in sorted(keys, key=lambda key: int(key.rpartition("_")[2]))]
    raise KeyError(f"no statistic {prefixes[0]}_1")


def _first(sums: Sums, *names: str) -> np.ndarray:
    for name in names:
        if name in sums:
            return sums[name]
    raise KeyError(f"no statistic {names[0]}")
