"""Metrics against independent truths: published examples, scikit-learn, sacrebleu and rouge-score themselves."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, compose
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef, r2_score, root_mean_squared_error

from sweep.config.schema import parse
from sweep.core.errors import UserError
from sweep.metrics import CorpusMetric, ModelOutputs, corpus_metric
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.bleu import Bleu
from sweep.metrics.chrf import ChrF
from sweep.metrics.exact_match import ExactMatch, final_number
from sweep.metrics.f1 import F1
from sweep.metrics.matthews import Matthews
from sweep.metrics.pearson import Pearson
from sweep.metrics.perplexity import Perplexity
from sweep.metrics.r2 import R2
from sweep.metrics.rmse import Rmse
from sweep.metrics.rouge import Rouge
from sweep.metrics.spearman import Spearman
from sweep.metrics.token_f1 import TokenF1

LABELS = st.lists(st.tuples(st.sampled_from("0123"), st.sampled_from("0123")), min_size=1, max_size=40)
TEXTS = st.lists(st.tuples(st.text("abc .", max_size=12), st.text("abc .", max_size=12)), min_size=1, max_size=8)
KOREAN = "인공지능은 인간의 학습 능력을 기계로 구현한 분야이다"


@settings(max_examples=60, deadline=None)
@given(LABELS)
def test_f1_and_matthews_equal_scikit_learn(pairs: list[tuple[str, str]]):
    got, wanted = [p for p, _ in pairs], [w for _, w in pairs]
    for average in ("macro", "weighted"):
        expected = f1_score(wanted, got, average=average, zero_division=0)
        assert F1(average=average).score(got, wanted) == pytest.approx(expected)
    expected = f1_score(wanted, got, labels=["2"], average="macro", zero_division=0)
    assert F1(average="binary", positive_label="2").score(got, wanted) == pytest.approx(expected)
    if len({*got, *wanted}) > 1:
        assert Matthews().score(got, wanted) == pytest.approx(matthews_corrcoef(wanted, got), abs=1e-12)


NUMBERS = st.lists(st.tuples(*[st.floats(-5, 5).map(lambda x: round(x, 2))] * 2), min_size=3, max_size=30)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.sampled_from([0.0, 1e6]))
def test_correlations_equal_scipy_also_for_numbers_far_from_0(pairs: list[tuple[float, float]], offset: float):
    got, wanted = [str(x + offset) for x, _ in pairs], [str(y) for _, y in pairs]
    x, y = [float(text) for text in got], [float(text) for text in wanted]
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert Pearson().score(got, wanted) == Spearman().score(got, wanted) == 0.0
        return
    assert Pearson().score(got, wanted) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)
    assert Spearman().score(got, wanted) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.sampled_from([0.0, 1e6]))
def test_errors_of_numbers_equal_scikit_learn(pairs: list[tuple[float, float]], offset: float):
    got, wanted = [str(x + offset) for x, _ in pairs], [str(y + offset) for _, y in pairs]
    x, y = [float(text) for text in got], [float(text) for text in wanted]
    assert Rmse().score(got, wanted) == pytest.approx(root_mean_squared_error(y, x), abs=1e-9)
    if len(set(y)) > 1:
        assert R2().score(got, wanted) == pytest.approx(r2_score(y, x), rel=1e-6, abs=1e-6)
    assert R2().score(got, wanted[:1] * len(wanted)) == 0.0


def test_binary_f1_takes_the_last_of_two_labels_and_needs_two():
    assert F1(average="binary").score(["1", "0", "1"], ["1", "1", "1"]) == pytest.approx(0.8)
    assert list(F1(average="binary").label_faults(["0", "1", "2"]))
    assert list(F1(average="binary", positive_label="x").label_faults(["0", "1"]))
    assert not list(F1(average="macro").label_faults(["0", "1", "2"]))


def test_labels_are_in_order_of_value_where_they_are_numbers():
    columns = F1(average="macro").statistics(ModelOutputs(["9", "9"], ["10", "9"]))
    assert columns["fn_0"] == [1.0, 0.0]  # 9 before 10


def test_accuracy_compares_whole_labels():
    assert Accuracy().per_example(["a b", "a"], ["a  b", "a"]) == [0.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_bleu_and_chrf_equal_sacrebleu_and_follow_from_sums(pairs: list[tuple[str, str]]):
    from sacrebleu.metrics import BLEU, CHRF

    got, wanted = [p for p, _ in pairs], [w for _, w in pairs]
    assert Bleu().score(got, wanted) == pytest.approx(BLEU(force=True).corpus_score(got, [wanted]).score)
    assert ChrF().score(got, wanted) == pytest.approx(CHRF().corpus_score(got, [wanted]).score)
    plus = ChrF(word_order=2).score(got, wanted)
    assert plus == pytest.approx(CHRF(word_order=2).corpus_score(got, [wanted]).score)
    assert ChrF(beta=3).score(got, wanted) == pytest.approx(CHRF(beta=3).corpus_score(got, [wanted]).score)


@pytest.mark.parametrize("metric", [Bleu(), ChrF(), F1(average="macro"), F1(average="weighted"), Matthews(), Pearson()])
def test_resampled_rows_give_the_score_of_the_resampled_examples(metric: CorpusMetric):
    """The purpose of the columns: the sums over the drawn rows give the score of the drawn examples."""
    source = random.Random(0)
    words = (
        ["0", "1", "2"]
        if isinstance(metric, F1 | Matthews | Pearson)
        else ["the cat sat", "the cat sat on a mat", "a dog"]
    )
    got, wanted = source.choices(words, k=30), source.choices(words, k=30)
    columns = metric.measure(ModelOutputs(wanted, got)).columns
    assert {len(values) for values in columns.values()} == {30}
    drawn = source.choices(range(30), k=30)
    sums = {name.removeprefix("/"): np.sum([values[i] for i in drawn]) for name, values in columns.items()}
    expected = metric.score([got[i] for i in drawn], [wanted[i] for i in drawn])
    assert metric.from_sums(sums) == pytest.approx(expected)


CORPUS_METRICS = [
    Bleu(),
    Bleu(tokenize="char", lowercase=True),
    ChrF(),
    ChrF(word_order=2),
    ChrF(beta=3),
    F1(average="macro"),
    F1(average="weighted"),
    F1(average="binary", positive_label="1"),
    Matthews(),
    Pearson(),
    Spearman(),
]


@settings(max_examples=25, deadline=None)
@given(TEXTS, LABELS, st.integers(0, 1000))
def test_formulas_give_the_same_for_many_sums_at_once_and_survive_the_tag(
    texts: list[tuple[str, str]], labels: list[tuple[str, str]], seed: int
):
    """The analysis builds the metric from the run's tag, and computes the scores of all resamples in one array."""
    for metric in CORPUS_METRICS:
        pairs = labels if isinstance(metric, F1 | Matthews | Pearson) else texts
        columns = metric.statistics(ModelOutputs([w for _, w in pairs], [p for p, _ in pairs]))
        draws = [random.Random(seed + i).choices(range(len(pairs)), k=len(pairs)) for i in range(6)]
        single = [{name: np.sum([values[i] for i in drawn]) for name, values in columns.items()} for drawn in draws]
        together = {name: np.reshape([sums[name] for sums in single], (2, 3)) for name in columns}
        rebuilt = corpus_metric(metric.facts()["corpus"])
        assert rebuilt == metric
        expected = [float(metric.from_sums(sums)) for sums in single]
        assert rebuilt.from_sums(together).ravel().tolist() == pytest.approx(expected, abs=1e-9), metric


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("sacrebleu.bleu", "JSONDecodeError"),
        ('{"tokenize": "13a"}', "_target_"),
        ('{"_target_": "sweep.metrics.gone.Gone"}', "No module named 'sweep.metrics.gone'"),
        ('{"_target_": "antigravity.Metric"}', r"package antigravity; if you trust it: packages=\[antigravity\]"),
        ('{"_target_": 5}', "package 5"),
        ('{"_target_": "sweep.metrics.accuracy.Accuracy"}', "not derived from sweep.metrics.CorpusMetric"),
        ('{"_target_": "sweep.metrics.bleu.Bleu", "order": 5}', "order"),
    ],
)
def test_a_tag_that_names_no_corpus_metric_is_refused(tag: str, words: str):
    with pytest.raises(ValueError, match=words):
        corpus_metric(tag)


def bleu_sums(correct: tuple[float, ...], total: tuple[float, ...], lengths: tuple[float, float]) -> dict:
    counts = {f"correct_{n}": correct[n - 1] for n in (1, 2, 3, 4)} | {f"total_{n}": total[n - 1] for n in (1, 2, 3, 4)}
    return {name: np.array(value) for name, value in counts.items()} | dict(
        zip(("hyp_len", "ref_len"), lengths, strict=True)
    )


def test_bleu_equals_a_calculation_by_hand():
    """Two sentences together: 9 of 10 unigrams, 6 of 8 bigrams, 4 of 6 trigrams, 2 of 4 4-grams; 10 words for 12."""
    precision = (0.9 * 0.75 * (4 / 6) * 0.5) ** 0.25
    found = Bleu().from_sums(bleu_sums((9, 6, 4, 2), (10, 8, 6, 4), (10, 12)))
    assert found == pytest.approx(100 * math.exp(1 - 1.2) * precision)


def test_bleu_smooths_orders_without_a_match_and_is_0_without_any_match():
    expected = 100 * (3 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25
    assert Bleu().from_sums(bleu_sums((3, 1, 0, 0), (4, 3, 2, 1), (4, 4))) == pytest.approx(expected)
    assert Bleu().from_sums(bleu_sums((0, 0, 0, 0), (4, 3, 2, 1), (4, 4))) == 0.0
    assert Bleu().from_sums(bleu_sums((2, 1, 0, 0), (2, 1, 0, 0), (2, 2))) == 0.0  # too short for a 4-gram


def test_importing_a_metric_imports_no_heavy_library():
    names = [file.stem for file in (ROOT / "sweep/metrics").glob("*.py") if file.stem != "__init__"]
    code = f"import sys, {', '.join('sweep.metrics.' + name for name in names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {"torch", "sacrebleu", "numpy", "scipy", "rouge_score", "regex"}


def test_signatures_are_those_of_sacrebleu():
    assert Bleu().facts()["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert ChrF(word_order=2).facts()["signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:")


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ("The Denver Broncos.", "denver broncos", True),
        ("an apple", "apple", True),
        ("apples", "apple", False),
        ("", "the", True),
    ],
)
def test_squad_s_normalisation(got: str, wanted: str, same: bool):
    assert ExactMatch(rule="squad").per_example([got], [wanted]) == [float(same)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples and 1,234.50 dollars.", "1234.50"),
        ("#### 42\nSo 7 remain", "7"),
        ("3 + 4 = 7\n#### -7", "-7"),
        ("it costs $18.", "18"),
        ("from 3-4 people", "4"),
        ("1,2,3", "3"),
        ("10000 or 1,000", "1000"),
        ("none", None),
        ("5 ####", "5"),
    ],
)
def test_final_number(text: str, number: str | None):
    assert (None if number is None else float(number)) == (
        None if (found := final_number(text)) is None else float(found)
    )


def test_numbers_are_equal_by_value_and_a_reference_needs_one():
    values = ExactMatch(rule="number").per_example(["it is 1,234.0 in all.", "nothing"], ["x #### 1234", "2"])
    assert values == [1.0, 0.0]
    with pytest.raises(UserError, match="example 2: its reference has no number"):
        ExactMatch(rule="number").per_example(["1", "2"], ["1", "two"])


def test_token_f1_of_the_squad_script():
    """Two of the three predicted words are right, of two wanted: 2·2/(3+2)."""
    assert TokenF1().per_example(["the big red cat"], ["red cat"]) == [pytest.approx(0.8)]
    assert TokenF1().per_example(["", "a", "x"], ["", "", "y"]) == [1.0, 1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_rouge_on_ascii_equals_rouge_score(pairs: list[tuple[str, str]]):
    from rouge_score.rouge_scorer import RougeScorer

    for kind in ("rouge1", "rouge2", "rougeL"):
        own = RougeScorer([kind])
        expected = [own.score(wanted, got)[kind].fmeasure for got, wanted in pairs]
        got = Rouge(kind=kind).per_example([p for p, _ in pairs], [w for _, w in pairs])
        assert got == pytest.approx(expected)


@pytest.mark.parametrize("text", [KOREAN, "हिन्दी में लिखा हुआ वाक्य", "北京是中国的首都", "Ελληνικά και العربية"])
def test_identical_texts_of_any_script_score_one(text: str):
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert Rouge(kind=kind).per_example([text], [text]) == [1.0]
    assert Rouge(kind="rouge1").per_example([text[: len(text) // 2]], [text])[0] < 1


def test_vowel_signs_belong_to_their_word():
    from sweep.metrics.rouge import UnicodeTokenizer

    assert UnicodeTokenizer().tokenize("हिन्दी में") == ["हिन्दी", "में"]
    assert UnicodeTokenizer().tokenize("北京 2008") == ["北", "京", "2008"]


def test_perplexity_weighs_tokens_not_examples():
    """Two tokens at probability 1/2 and one at 1/8: (2·2·8)^(1/3)."""
    nll = [2 * math.log(2), math.log(8)]
    measured = Perplexity().measure(ModelOutputs(["x", "y"], nll=nll, tokens=[2, 1]))
    assert measured.score == pytest.approx(32 ** (1 / 3))
    assert measured.columns == {"/nll": nll, "/tokens": [2.0, 1.0]}


def test_every_metric_preset_builds():
    every = sorted(file.stem for file in (ROOT / "conf/metric").glob("*.yaml"))
    names = [name for name in every if not name.startswith("multi_label")]  # of their own task, whose preset has them
    built = parse(compose(*(f"+metric@task.metrics.extra_{name}={name}" for name in names))).task.metrics
    assert {f"extra_{name}" for name in names} <= built.keys()
    assert built["extra_exact_match_number"] == ExactMatch(rule="number")
