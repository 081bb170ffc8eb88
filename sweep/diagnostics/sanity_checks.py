"""Warnings about doubtful figures of a run, for its record: a table of scores does not show them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from sweep.core.formatting import gib
from sweep.core.measurements import ADAPTED_FRACTION, QUANTIZED_FRACTION
from sweep.meters import PHASES
from sweep.metrics import Metric
from sweep.variants import Variant

TRUNCATED = 0.03  # share of the examples
LEAKED = 0.01
GROWN = 0.001  # share of a phase's peak by which each step or batch grows: less than that is kept results
ERRORS = 2.0  # a difference counts from this many standard errors
FAR_TOO_HIGH = 1.0  # a learning rate above those of all families
COVERED = 0.5  # share of the weights of the blocks
SMALL_RATE = 1e-4  # AdamW's updates are about as large: a bf16 weight of 0.05 needs 1e-4 to change
FEWEST_STEPS = 12  # with fewer, a loss has hardly changed


def chance(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The score of a constant answer, the most frequent reference, or the mean of numbers: with four classes of equal
    size an accuracy of 0.25, with texts that are all different about 0.

    Returns `eval/majority_baseline` and `eval/distinct_predictions`; nothing for a metric without predictions.
    """
    if not metric.needs_predictions or not rows or any("prediction" not in row for row in rows):
        return {}
    references = [str(row["reference"]) for row in rows]
    most = min(Counter(references).items(), key=lambda item: (-item[1], item[0]))[0]
    constant = repr(fmean(map(float, references))) if metric.needs_numbers else most
    guess = metric.score([constant] * len(rows), references)
    distinct = len({str(row["prediction"]) for row in rows})
    found = {"eval/majority_baseline": guess, "eval/distinct_predictions": float(distinct)}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def moved(losses: Sequence[float]) -> dict[str, float]:
    """Mean loss of the first and of the last quarter of the steps, and the standard error of their difference; nothing
    for fewer than twelve steps."""
    if len(losses) < FEWEST_STEPS:
        return {}
    quarter = len(losses) // 4
    first, last = losses[:quarter], losses[-quarter:]
    error = math.sqrt((variance(first) + variance(last)) / quarter)
    return {"train/first_loss": fmean(first), "train/last_loss": fmean(last), "train/loss_change_stderr": error}


def _partial_coverage(measured: Mapping[str, float], variant: Variant) -> Iterator[str]:
    adapted, quantized = (measured.get(key, 1.0) for key in (ADAPTED_FRACTION, QUANTIZED_FRACTION))
    if variant.adapts_all_layers and adapted < COVERED:
        yield (
            f"the adapters reach {adapted:.0%} of the weights of the blocks: the others, such as experts that are no "
            "linear layers, stay as they are. Name them in variant.target_modules, or compare with another variant"
        )
    if variant.quantized and quantized < COVERED:
        yield (
            f"{quantized:.0%} of the weights of the blocks are quantised: bitsandbytes quantises linear layers only, "
            "so the others, such as experts, need as much memory as without quantisation"
        )


def _other(rate: float) -> str:
    """Learning rates to try, the likelier one first: a loss does not fall where steps are tiny or where they
    overshoot."""
    low, high = f"{rate / 10:g}", f"{rate * 10:g}"
    return f"{FAR_TOO_HIGH / 10:g}, a usual one" if rate > FAR_TOO_HIGH else f"{high}, and {low}"


def loss_did_not_move(measured: Mapping[str, float]) -> bool | None:
    """Whether the training loss decreased by no more than its noise; None if it was not measured."""
    first, last = measured.get("train/first_loss"), measured.get("train/last_loss")
    if first is None or last is None:
        return None
    return last > first - ERRORS * measured["train/loss_change_stderr"]


def at_chance(measured: Mapping[str, float], higher_is_better: bool) -> bool | None:
    """Whether the score is no better than that of a constant answer, by more than its noise; None if it is unknown."""
    score, guess = measured.get("score"), measured.get("eval/majority_baseline")
    if score is None or guess is None:
        return None
    return (score - guess if higher_is_better else guess - score) <= noise_of_chance(measured)


def noise_of_chance(measured: Mapping[str, float]) -> float:
    """Two standard errors of the score of a constant answer, if it is the share of correct answers."""
    share, count = min(max(measured["eval/majority_baseline"], 0.0), 1.0), measured.get("eval/examples", 0)
    return ERRORS * math.sqrt(share * (1 - share) / count) if count else 0.0


def warnings(measured: Mapping[str, float], higher_is_better: bool, rate: float, variant: Variant) -> Iterator[str]:
    """A sentence for each doubtful figure, the most serious one first. `rate` is the learning rate of the run."""
    if loss_did_not_move(measured):
        first, last = measured["train/first_loss"], measured["train/last_loss"]
        yield (
            f"the loss did not decrease: {first:.3g} in the first quarter of the steps, {last:.3g} in the last. The "
            f"learning rate was {rate:g}: try {_other(rate)}; else check which modules train (variant.target_modules)"
        )
    changed = measured.get("train/changed_weights_fraction")
    if changed is not None and rate < SMALL_RATE:
        yield (
            f"the weights trained in 16 bits at a learning rate of {rate:g}, and {changed:.0%} of them changed: small "
            "updates are rounded away, so that this setting learns less than it could; use train.trained_weights=fp32"
        )
    count = measured.get("eval/examples", 0)
    if at_chance(measured, higher_is_better):
        guess, noise = measured["eval/majority_baseline"], noise_of_chance(measured)
        yield (
            f"the score, {measured['score']:.4g}, is at chance level: the same answer to everything scores {guess:.4g}"
            + (f" (± {noise:.2g} on {count:.0f} examples)" if noise else "")
        )
    if measured.get("eval/distinct_predictions") == 1 and count > 1:
        yield f"the answer is the same for all {count:.0f} validation examples"
    yield from _partial_coverage(measured, variant)
    leaked = measured.get("data/contaminated_fraction", 0.0)
    if leaked > LEAKED:
        yield (
            f"{leaked:.0%} of the validation examples are also in the training data, with the same text: the score "
            "measures in part what the model memorised"
        )
    unseen = measured.get("data/unseen_label_fraction", 0.0)
    if unseen > LEAKED:
        yield f"{unseen:.0%} of the validation examples have a label that no training example has"
    cut = measured.get("data/truncated_fraction", 0.0)
    if cut > TRUNCATED:
        yield f"{cut:.0%} of the training examples were cut to train.max_length: raise it, or shorten the texts"
    unread = measured.get("data/validation_truncated_examples", 0.0)
    if unread > TRUNCATED * count > 0:
        yield (
            f"{unread / count:.0%} of the validation examples were cut: the model saw these texts in part "
            "(train.max_length, the model's positions, task.max_new_tokens)"
        )
    for phase, unit in (("train", "step"), ("eval", "batch")):
        growth = measured.get(f"memory/{phase}_growth_bytes_per_{unit}", 0.0)
        if growth > GROWN * measured.get(f"memory/{phase}_max_allocated_bytes", math.inf):
            yield (
                f"memory grows by {gib(growth)} with each {unit} of {phase}: something keeps its tensors alive, and "
                "a longer run needs more than the measured peak"
            )
    others = max((measured.get(f"memory/{phase}_others_bytes", 0.0) for phase in PHASES), default=0.0)
    if others:
        yield (
            f"other processes held {gib(others)} on the GPU: the run's memory is its own, but its speed and its energy "
            "include what they did"
        )
    dropped, kept = measured.get("data/dropped_examples", 0.0), measured.get("data/train_examples", 0.0)
    if dropped > TRUNCATED * (dropped + kept):
        share = dropped / (dropped + kept)
        yield f"{share:.0%} of the training examples were left out: train.max_length leaves nothing of their answers"
