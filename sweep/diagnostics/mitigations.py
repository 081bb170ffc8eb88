"""What to try after a run that ran out of memory or diverged: for its own settings, in the order that costs least.

The orders are those of the field's usual check lists: for memory, quantise the base, compute activations twice, shorten
the sequences, split the batch, halve the precision, page the optimizer; for divergence, a lower rate, clipping, a
precision with a wider range, then the regularisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sweep.config.schema import RunConfig
from sweep.core.formatting import gib
from sweep.variants.lora import LoRA, QLoRA

HIGHEST_RATE, HIGHEST_OF_WEIGHTS = 1e-2, 1e-3  # far above (adapters, the model's own), a third of the rate is no advice
CLIP = 1.0
WARMUP = 0.03  # share of the steps
DECAY = 0.01
BETA2 = 0.999
SHORTEST = 32  # tokens: below, shortening takes more from the task than from the memory


class Mitigation(NamedTuple):
    """One thing to try: what to add to the command, why, and the same as changes of the composed config."""

    overrides: str
    why: str
    changes: Mapping[str, Any]
    saved_bytes: float | None = None

    def __str__(self) -> str:
        if self.saved_bytes is None:
            return f"{self.overrides}: {self.why}"
        effect = f"save {gib(self.saved_bytes)}" if self.saved_bytes > 0 else "save nothing here"
        return f"{self.overrides}: {self.why} (predicted to {effect})"


def after_divergence(config: RunConfig, precision: str) -> list[Mitigation]:
    """Rate now → rate to try, then clipping, precision, warm-up, weight decay, and the optimizer's memory.

    `precision` is what training computed in, as "auto" was resolved.
    """
    return list(_after_divergence(config, precision))


def _after_divergence(config: RunConfig, precision: str) -> Iterator[Mitigation]:
    train, rate = config.train, config.variant.learning_rate * config.study.learning_rate_multiplier
    lower = one_digit(min(rate / 3, HIGHEST_RATE if config.variant.is_adapter else HIGHEST_OF_WEIGHTS))
    factor = {"study.learning_rate_multiplier": 1.0} if config.study.learning_rate_multiplier != 1 else {}
    yield _step({"variant.learning_rate": lower, **factor}, f"a lower rate; it was {rate:g}")
    if not 0 < train.max_grad_norm <= CLIP:
        now = f"it was {train.max_grad_norm:g}" if train.max_grad_norm else "it was off"
        yield _step({"train.max_grad_norm": CLIP}, f"clip gradients; {now}")
    if precision == "fp16":
        yield _step({"train.precision": "bf16"}, "fp16 overflows above 65,504; bf16 has the range of fp32 (or fp32)")
    elif precision == "bf16":
        yield _step({"train.precision": "fp32"}, "to see whether rounding is the cause; slower, and twice the memory")
    if train.warmup_ratio < WARMUP:
        changes: dict[str, Any] = {"train.warmup_ratio": WARMUP}
        if train.lr_scheduler_type == "constant":
            changes["train.lr_scheduler_type"] = "constant_with_warmup"
        yield _step(changes, "begin with smaller steps, while the optimizer knows little of the gradients")
    if train.weight_decay > DECAY:
        yield _step({"train.weight_decay": DECAY}, f"it was {train.weight_decay:g}; 0 to {DECAY:g} is usual")
    if train.adam_beta2 != BETA2:
        yield _step({"train.adam_beta2": BETA2}, f"the default; it was {train.adam_beta2:g}")


def after_oom(config: RunConfig, precision: str, device_type: str) -> list[Mitigation]:
    """What is not done yet, each by itself. The batch that the optimizer sees stays the same throughout."""
    return list(_after_oom(config, precision, device_type))


def _after_oom(config: RunConfig, precision: str, device_type: str) -> Iterator[Mitigation]:
    train, variant = config.train, config.variant
    if not variant.quantized:
        r, alpha = (variant.r, variant.alpha) if isinstance(variant, LoRA) else (16, 32.0)
        quantized = QLoRA(name=f"qlora_r{r}", learning_rate=variant.learning_rate, r=r, alpha=alpha)
        target = {"_target_": f"{QLoRA.__module__}.{QLoRA.__qualname__}", **asdict(quantized)}
        preset = f"variant=qlora_r{r}" if r in (8, 16) else f"variant=qlora_r16 variant.r={r} variant.alpha={alpha:g}"
        lora = isinstance(variant, LoRA)
        what = "hold the frozen base in 4 bits" + ("" if lora else ", and train LoRA on it instead")
        yield Mitigation(preset, what, {"variant": target})
    if not train.activation_checkpointing and not config.variant.extra_positions:
        changes = {"train.activation_checkpointing": True}
        yield _step(changes, "keep a few activations and compute the others twice: about a third slower")
    if train.max_length // 2 >= SHORTEST:
        yield _step({"train.max_length": train.max_length // 2}, "shorter sequences; see that responses are not cut")
    if train.micro_batch_size > 1:
        pieces = 2 if train.micro_batch_size % 2 == 0 else train.micro_batch_size
        smaller = {
            "train.micro_batch_size": train.micro_batch_size // pieces,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * pieces,
        }
        yield _step(smaller, "the same batch in smaller pieces: the result stays, the speed falls")
    if precision == "fp32" and device_type == "cuda":
        yield _step({"train.precision": "bf16"}, "half the bytes of every activation")
    if train.devices_per_run > 1 and not train.sharded and variant.sharding_fault is None:
        yield _step({"train.parallelism": "fsdp"}, "each device holds a part of the model, and not all of it")
    paged = train.optimizer.startswith("paged") or variant.optimizer(device_type) is not None
    if device_type == "cuda" and not paged and not train.sharded:
        yield _step({"train.optimizer": "paged_adamw_8bit"}, "an optimizer with small state that may leave the GPU")


def with_savings(
    steps: Sequence[Mitigation],
    plain: Mapping[str, Any],
    predict: Callable[[Sequence[Mapping[str, Any]]], Sequence[float | None]],
) -> list[Mitigation]:
    """The steps with what each alone would save, by `predict`: composed configs → peak bytes of training, None for what
    cannot be predicted, which stays without a figure."""
    now, *then = predict([plain, *(changed(plain, step.changes) for step in steps)])
    return [
        step if now is None or peak is None else step._replace(saved_bytes=now - peak)
        for step, peak in zip(steps, then, strict=True)
    ]


def changed(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A composed config with dotted keys replaced."""
    result = dict(plain)
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        result[head] = changed(result[head], {rest: value}) if rest else value
    return result


def text(steps: Sequence[Mitigation]) -> str:
    """One line for each, numbered."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def one_digit(value: float) -> float:
    """Rounded to one digit: 0.00333 → 0.003."""
    return float(f"{value:.0e}")


def _step(changes: Mapping[str, Any], why: str) -> Mitigation:
    overrides = " ".join(f"{key}={_value(value)}" for key, value in changes.items())
    return Mitigation(overrides, why, changes)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
