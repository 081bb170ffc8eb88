"""The noise of scores against simulation and formulas; corpus scores; what would settle; how stable a pick is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from analysis.decision.noninferiority import verdicts
from analysis.decision.pick_stability import stability
from analysis.decision.sample_size import required_sample_size
from analysis.decision.score_noise import estimate_noise, from_examples, resampled
from analysis.decision.threshold import Rule
from analysis.loading import corpus_metrics
from analysis.loading.per_example import Absent, Examples, read
from sweep.core.errors import UserError


def test_the_variance_of_a_difference_is_that_of_repeated_studies():
    """1,000 studies of two settings, seeds and examples both drawn anew: what one study estimates, on average."""
    rng = np.random.default_rng(0)
    seeds, n = 4, 60
    differences, estimates = [], []
    for _ in range(1000):
        shared = rng.normal(0, 0.5, n)
        own = rng.normal(0, 0.2, (2, 1, n))
        values = shared + own + rng.normal(0, 0.05, (2, seeds, 1)) + rng.normal(0, 0.3, (2, seeds, n))
        found = verdicts(from_examples(values.reshape(2 * seeds, n), np.repeat([0, 1], seeds), ["a", "b"]), Rule(1.0))
        differences.append(found.contrasts.value[0, 1])
        estimates.append(found.contrasts.variance[0, 1])
    # The larger of own and pooled variance is taken, and never less than none: a little high, never low.
    assert 1.0 <= np.mean(estimates) / np.var(differences) < 1.35


def test_a_resampled_mean_has_the_variance_of_a_mean():
    """The bootstrap of a corpus metric that is a mean in disguise gives the analytic covariance."""
    rng = np.random.default_rng(1)
    values = rng.random((4, 400))
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": ["x", "x", "y", "y"], "score": values.mean(axis=1)})
    statistics = np.stack([values, np.ones_like(values)], axis=2)
    rule = corpus_metrics.Rule("ratio", corpus_metrics.ratio)
    names = ("numerator", "denominator")
    by_sums = estimate_noise(runs, Examples(list("abcd"), 400, statistics=statistics, names=names, rule=rule))
    exact = estimate_noise(runs, Examples.of(dict(zip("abcd", values, strict=True))))
    assert np.allclose(by_sums.scores, exact.scores)
    assert by_sums.own_variance == pytest.approx(exact.own_variance, rel=0.15)


def test_copies_of_an_example_in_one_group_tell_no_more_than_the_example(tmp_path: Path):
    """Every example written down three times, with a name in common: the same evidence as from the originals."""
    values = (np.random.default_rng(0).random((4, 50)) < 0.7) * 1.0
    run_of, names = np.array([0, 0, 1, 1]), ["a", "b"]
    once, grouped = from_examples(values, run_of, names), np.repeat(np.arange(50), 3)
    again = from_examples(np.repeat(values, 3, axis=1), run_of, names, groups=grouped)
    for field in ("scores", "seed_sd", "own_variance", "covariance", "answer_variance", "n_examples"):
        assert np.allclose(getattr(once, field), getattr(again, field)), field
    passages = [f"passage {i}" for i in grouped]
    paths = {
        run_id: written(tmp_path, run_id, index=list(range(150)), em=list(np.repeat(row, 3)), passage=passages)
        for run_id, row in zip("abcd", values, strict=True)
    }
    means = dict(zip("abcd", values.mean(axis=1), strict=True))
    found = read(means, "em", None, paths.get, cluster="passage")
    assert isinstance(found, Examples)
    assert found.units == 50
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": list("xxyy"), "score": list(means.values())})
    assert estimate_noise(runs, found).own_variance == pytest.approx(once.own_variance)
    drawn = resampled(found, 2000, np.random.default_rng(0))
    assert drawn[:, 0].var() == pytest.approx(values[0].var() / 50, rel=0.15)
    with pytest.raises(UserError, match="did you mean passage"):
        read(means, "em", None, paths.get, cluster="pasage")


def test_bleu_is_worked_out_by_hand():
    """Two sentences together: 9 of 10 unigrams, 6 of 8 bigrams, 4 of 6 trigrams, 2 of 4 4-grams; 10 words for 12."""
    sums = {f"match_{i}": np.array([[m]]) for i, m in enumerate((9.0, 6.0, 4.0, 2.0), start=1)}
    sums |= {f"total_{i}": np.array([[t]]) for i, t in enumerate((10.0, 8.0, 6.0, 4.0), start=1)}
    sums |= {"hyp_len": np.array([[10.0]]), "ref_len": np.array([[12.0]])}
    precision = (0.9 * 0.75 * (4 / 6) * 0.5) ** 0.25
    assert corpus_metrics.bleu(sums)[0, 0] == pytest.approx(100 * math.exp(1 - 1.2) * precision)


def test_bleu_smooths_and_vanishes_as_sacrebleu_does():
    sums = {f"match_{i}": np.array([m]) for i, m in enumerate((3.0, 1.0, 0.0, 0.0), start=1)}
    sums |= {f"total_{i}": np.array([t]) for i, t in enumerate((4.0, 3.0, 2.0, 1.0), start=1)}
    sums |= {"sys_len": np.array([4.0]), "ref_len": np.array([4.0])}
    expected = 100 * (3 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25
    assert corpus_metrics.bleu(sums)[0] == pytest.approx(expected)
    assert corpus_metrics.bleu({**sums, "match_1": np.array([0.0])})[0] == 0.0


OURS = ["the cat sat on the mat", "a dog runs far away", "no match", "a dog runs"]
THEIRS = ["the cat sat on a mat", "a dog ran far away from here", "something else", "the dog runs"]


@pytest.mark.parametrize("name", ["bleu", "chrf", "f1_macro", "f1_weighted", "f1_binary", "matthews"])
def test_the_rules_are_those_of_the_metrics(name: str):
    """The formula over sums gives what the metric itself gives, which its own tests hold against others' programs."""
    from sweep.metrics import ModelOutputs
    from sweep.metrics.bleu import Bleu
    from sweep.metrics.chrf import ChrF
    from sweep.metrics.f1 import F1
    from sweep.metrics.matthews import Matthews

    labels = (list("abcabcaab"), list("abcacbbab"))
    metric, (ours, theirs) = {
        "bleu": (Bleu(), (OURS, THEIRS)),
        "chrf": (ChrF(), (OURS, THEIRS)),
        "f1_macro": (F1(average="macro"), labels),
        "f1_weighted": (F1(average="weighted"), labels),
        "f1_binary": (F1(average="binary", positive_label="b"), labels),
        "matthews": (Matthews(), labels),
    }[name]
    rule = corpus_metrics.rule_of(metric.facts()["corpus"])
    assert rule is not None
    columns = metric.statistics(ModelOutputs(theirs, ours))
    sums = {key: np.array([[sum(values)]]) for key, values in columns.items()}
    assert rule.formula(sums)[0, 0] == pytest.approx(metric.score(ours, theirs))


def test_perplexity_is_the_exponential_of_the_mean():
    assert corpus_metrics.perplexity({"nll": np.array([6.0]), "tokens": np.array([3.0])})[0] == pytest.approx(math.e**2)


@pytest.mark.parametrize("tag", ['"sacrebleu.bleu"', '{"rule": "sacrebleu.bleu", "signature": "x"}', "sacrebleu.bleu"])
def test_the_rule_is_read_from_the_tag(tag: str):
    rule = corpus_metrics.rule_of(tag)
    assert rule is not None
    assert rule.formula is corpus_metrics.bleu
    assert corpus_metrics.rule_of('"no.such"') is None


def written(folder: Path, name: str, **columns: list) -> Path:
    path = folder / f"{name}.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_examples_are_read_in_order_of_their_index(tmp_path: Path):
    paths = {
        "a": written(tmp_path, "a", index=[0, 1, 2], em=[1.0, 0.0, 1.0]),
        "b": written(tmp_path, "b", index=[2, 0, 1], em=[0.0, 1.0, 0.0]),
    }
    found = read({"a": 2 / 3, "b": 1 / 3}, "em", None, paths.get)
    assert isinstance(found, Examples)
    assert found.values is not None
    assert found.values.tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_metric_that_is_no_mean_is_not_taken_for_one(tmp_path: Path):
    path = written(tmp_path, "a", index=[0, 1], bleu=[10.0, 30.0])
    found = read({"a": 25.0}, "bleu", None, {"a": path}.get)
    assert isinstance(found, Absent)
    assert "is not the mean" in found.reason


def test_corpus_statistics_are_used_where_the_run_names_their_rule(tmp_path: Path):
    columns = {"index": [0, 1], "acc": [1.0, 0.5], "acc/numerator": [3.0, 1.0], "acc/denominator": [3.0, 2.0]}
    path = written(tmp_path, "a", **columns)
    found = read({"a": 0.8}, "acc", json.dumps("ratio"), {"a": path}.get)
    assert isinstance(found, Examples)
    assert found.scores(np.array([[0.0, 2.0]])).tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "not every run"),
        ({"a": {"index": [0], "em": [1.0]}, "b": {"index": [1], "em": [1.0]}}, "same examples"),
        ({"a": {"index": [0]}, "b": {"index": [0]}}, "no column"),
        ({"a": {"index": [0], "em": [math.nan]}, "b": {"index": [0], "em": [1.0]}}, "are missing"),
    ],
)
def test_why_examples_cannot_be_used(tmp_path: Path, files: dict, reason: str):
    paths = {name: written(tmp_path, name, **columns) for name, columns in files.items()}
    found = read({"a": 1.0, "b": 1.0}, "em", None, paths.get)
    assert isinstance(found, Absent)
    assert reason in found.reason


def test_what_is_asked_for_settles_it():
    """Studies of the size that was asked for get a verdict about as often as was said."""
    rng = np.random.default_rng(3)

    def one(seeds: int) -> tuple[str, object]:
        scores = [0.80 + rng.normal(0, 0.01, seeds), 0.77 + rng.normal(0, 0.01, seeds)]
        rows = [(f"s{i}", score) for i, runs in enumerate(scores) for score in runs]
        frame = pd.DataFrame(rows, columns=["setting", "score"]).assign(run_id=range(2 * seeds))
        evidence = estimate_noise(frame, Absent("none"))
        found = verdicts(evidence, Rule(0.99))
        return str(found.verdict[1]), required_sample_size(evidence, found)[1]

    asked = [settlement for verdict, settlement in (one(3) for _ in range(300)) if verdict == "inconclusive"]
    needed = int(np.median([s.seeds for s in asked if s.seeds]))
    assert 3 < needed < 12
    settled = np.mean([one(needed)[0] == "fails" for _ in range(300)])
    assert 0.6 < settled <= 1.0


def test_a_single_seed_asks_for_a_first_look():
    frame = pd.DataFrame({"setting": ["a", "b"], "score": [0.8, 0.79], "run_id": ["a", "b"]})
    evidence = estimate_noise(frame, Absent("none"))
    assert required_sample_size(evidence, verdicts(evidence, Rule()))[1].first_look


def small(memory: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"setting": ["a", "b"], "memory": memory, "trainable_params": [1.0, 1.0]})


def test_pick_stability_is_the_chance_of_the_literal_pick():
    """b, the larger one, is picked when a's one example of two is drawn less often: 1 resample of 4."""
    runs = pd.DataFrame({"run_id": ["a", "b"], "setting": ["a", "b"], "score": [0.5, 0.5]})
    examples = Examples.of({"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])})
    found = stability(runs, small([1.0, 2.0]), "a", Rule(0.99), examples, resamples=4000)
    assert found is not None
    assert found.over == "examples"
    assert found.share == pytest.approx(0.75, abs=0.03)
    assert sum(found.picks.values()) == pytest.approx(1)


def test_stability_over_seeds_and_over_counts():
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": list("aabb"), "score": [0.1, 0.9, 0.5, 0.5]})
    found = stability(runs, small([1.0, 2.0]), "a", Rule(0.99), Absent("none"), resamples=4000)
    assert found is not None
    assert found.over == "seeds"
    assert found.share == pytest.approx(0.75, abs=0.03)  # a misses the bar where its bad seed is drawn twice
    one = pd.DataFrame({"run_id": ["a", "b"], "setting": ["a", "b"], "score": [0.5, 0.9]})
    assert stability(one, small([1.0, 2.0]), "b", Rule(0.99), Absent("none")) is None
    counted = stability(one.assign(n_examples=2), small([1.0, 2.0]), "b", Rule(1.0), Absent("none"), resamples=4000)
    # a needs at least as many right answers of 2: P(a ≥ b) with a ~ B(2, 0.5), b ~ B(2, 0.9)
    chance = 0.25 * 1 + 0.5 * (0.01 + 0.18) + 0.25 * 0.01
    assert counted is not None
    assert counted.share == pytest.approx(1 - chance, abs=0.03)
