"""What to try after a run ran out of memory or diverged: the one list that the records, the plan and the report use.

The list against memory is ordered by cost. Changes that only take time come first; then those that change the
arithmetic. Shorter sequences come last, since they change what the model learns from. The list against divergence is
the usual one: a lower rate, clipping, a precision with a wider range, then the regularisers. No torch is imported here,
so that `analysis` can use the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from sweep.config.schema import RunConfig, parse
from sweep.core.formatting import gib
from sweep.core.overrides import shell_override
from sweep.core.paths import CONF
from sweep.core.record import Outcome
from sweep.memory import Prediction, Unpredictable
from sweep.memory.gpu_catalog import needed_bytes
from sweep.variants import Variant
from sweep.variants.lora import QLoRA

# The highest rates that are suggested: for adapters, and for the model's own weights.
HIGHEST_RATE, HIGHEST_OF_WEIGHTS = 1e-2, 1e-3
CLIP = 1.0
WARMUP = 0.03  # share of the steps
DECAY = 0.01
BETA2 = 0.999
SHORTEST = 32  # tokens: shorter sequences take more from the task than from the memory

# The same lists, in the same order, where a run's own config is not known.
GENERAL: Mapping[Outcome, str] = {
    Outcome.OOM: (
        "a smaller train.eval_batch_size (where evaluation ran out); train.activation_checkpointing=true; a smaller "
        "train.micro_batch_size with more train.gradient_accumulation_steps (the same batch); train.optimizer="
        "adamw_8bit or paged_adamw_8bit; QLoRA (variant=qlora_r16); train.precision=bf16; train.parallelism=fsdp on "
        "several devices; a shorter train.max_length"
    ),
    Outcome.DIVERGED: (
        "a lower variant.learning_rate (a third); gradient clipping (train.max_grad_norm=1.0); train.precision=bf16 "
        "rather than fp16; a longer train.warmup_ratio; a smaller train.weight_decay; train.adam_beta2=0.999"
    ),
}


@dataclass(frozen=True)
class Mitigation:
    """One change to try: what to add to the command, what that does and costs, and the same change of the composed
    config by dotted key.

    `saved_bytes` is how much lower the predicted peak is; None where it was not predicted. `needed_bytes` is what the
    run needs of a GPU with this change and those before it; None where each stands alone.
    """

    overrides: str
    why: str
    changes: Mapping[str, Any]
    saved_bytes: float | None = None
    needed_bytes: int | None = None

    def __str__(self) -> str:
        if self.saved_bytes is None:
            return f"{self.overrides}: {self.why}"
        effect = f"save {gib(self.saved_bytes)}" if self.saved_bytes > 0 else "save nothing here"
        return f"{self.overrides}: {self.why} (predicted to {effect})"


class Situation(NamedTuple):
    """The run that needs help. `precision` is what training computes in, with "auto" resolved where that is known;
    `phase` is the phase that ran out of memory, None where it is not known."""

    config: RunConfig
    device_type: str = "cuda"
    precision: str = "auto"
    phase: str | None = None


def suggestions(outcome: Outcome, run: Situation) -> list[Mitigation]:
    """What is not done yet, each change alone. The batch that the optimizer sees stays the same throughout."""
    lists = {Outcome.OOM: _against_oom, Outcome.DIVERGED: _against_divergence}
    return list(lists[outcome](run)) if outcome in lists else []


def _against_oom(run: Situation) -> Iterator[Mitigation]:
    train, variant, on_gpu = run.config.train, run.config.variant, run.device_type == "cuda"
    if train.eval_batch_size > 1 and run.phase in (None, "eval"):
        size = max(1, train.eval_batch_size // 4)
        yield _step({"train.eval_batch_size": size}, "a slower evaluation, the same scores")
    if not train.activation_checkpointing and not variant.extra_positions:
        changes = {"train.activation_checkpointing": True}
        yield _step(changes, "keep a few activations and compute the others twice: about a third slower")
    if train.micro_batch_size > 1:
        pieces = 2 if train.micro_batch_size % 2 == 0 else train.micro_batch_size
        smaller = {
            "train.micro_batch_size": train.micro_batch_size // pieces,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * pieces,
        }
        yield _step(smaller, "the same batch in smaller pieces: the result stays, the speed falls")
    own = not isinstance(train.optimizer, str)
    paged = own or str(train.optimizer).startswith("paged") or variant.optimizer(run.device_type) is not None
    if on_gpu and not paged and not train.sharded:
        if train.optimizer != "adamw_8bit":
            yield _step({"train.optimizer": "adamw_8bit"}, "the optimizer's state in 8 bits")
        yield _step({"train.optimizer": "paged_adamw_8bit"}, "an optimizer with small state that may leave the GPU")
    if not variant.quantized:
        quantized = variant.with_quantized_base() or QLoRA(name="qlora_r16", learning_rate=variant.learning_rate, r=16)
        what = {"_target_": f"{type(quantized).__module__}.{type(quantized).__qualname__}", **asdict(quantized)}
        yield Mitigation(_typed(quantized), "hold the frozen base in 4 bits, and train LoRA on it", {"variant": what})
    if run.precision == "fp32" and on_gpu:
        yield _step({"train.precision": "bf16"}, "half the bytes of every activation")
    if train.devices_per_run > 1 and not train.sharded and variant.sharding_fault is None:
        yield _step({"train.parallelism": "fsdp"}, "each device holds a part of the model, and not all of it")
    if train.max_length is not None and train.max_length // 2 >= SHORTEST:
        yield _step({"train.max_length": train.max_length // 2}, "shorter sequences; check that responses are not cut")


def _against_divergence(run: Situation) -> Iterator[Mitigation]:
    train, variant, factor = run.config.train, run.config.variant, run.config.study.learning_rate_multiplier
    rate = variant.learning_rate * factor
    lower = float(f"{min(rate / 3, HIGHEST_RATE if variant.is_adapter else HIGHEST_OF_WEIGHTS):.0e}")  # one digit
    reset = {"study.learning_rate_multiplier": 1.0} if factor != 1 else {}
    yield _step({"variant.learning_rate": lower, **reset}, f"a lower rate; it was {rate:g}")
    if not 0 < train.max_grad_norm <= CLIP:
        now = f"it was {train.max_grad_norm:g}" if train.max_grad_norm else "it was off"
        yield _step({"train.max_grad_norm": CLIP}, f"clip gradients; {now}")
    if run.precision == "fp16":
        yield _step({"train.precision": "bf16"}, "fp16 overflows above 65,504; bf16 has the range of fp32 (or fp32)")
    elif run.precision == "bf16":
        yield _step({"train.precision": "fp32"}, "to see whether rounding is the cause; slower, and twice the memory")
    if train.warmup_ratio < WARMUP:
        changes: dict[str, Any] = {"train.warmup_ratio": WARMUP}
        if train.lr_scheduler_type == "constant":
            changes["train.lr_scheduler_type"] = "constant_with_warmup"
        yield _step(changes, "start with smaller steps, while the optimizer has seen few gradients")
    if train.weight_decay > DECAY:
        yield _step({"train.weight_decay": DECAY}, f"it was {train.weight_decay:g}; 0 to {DECAY:g} is usual")
    if train.adam_beta2 != BETA2:
        yield _step({"train.adam_beta2": BETA2}, f"the default; it was {train.adam_beta2:g}")


def until_it_fits(
    plain: Mapping[str, Any],
    capacity_bytes: int,
    predict: Callable[[Mapping[str, Any]], Prediction | Unpredictable],
) -> list[Mitigation]:
    """Changes that save memory on a GPU of `capacity_bytes`, one added to the other until the run fits; all where it
    never fits. The next change is always the first of the list that saves something. `plain` is the composed config.
    """
    before, taken, useless = predict(plain), [], set()
    if not isinstance(before, Prediction):
        return []
    needed = needed_bytes(before)
    while needed > capacity_bytes:
        open_steps = suggestions(Outcome.OOM, Situation(parse(plain)))
        step = next((step for step in open_steps if step.overrides not in useless), None)
        if step is None:
            break
        after = predict(changed(plain, step.changes))
        if not isinstance(after, Prediction) or needed_bytes(after) >= needed:
            useless.add(step.overrides)
            continue
        taken.append(replace(step, saved_bytes=needed - needed_bytes(after), needed_bytes=needed_bytes(after)))
        plain, needed = changed(plain, step.changes), needed_bytes(after)
        useless.clear()  # another phase may decide from here on
    return taken


def with_savings(
    steps: Sequence[Mitigation],
    plain: Mapping[str, Any],
    predict: Callable[[Sequence[Mapping[str, Any]]], Sequence[float | None]],
) -> list[Mitigation]:
    """The steps with what each alone saves, by `predict`: composed configs → peak bytes, None for what cannot be
    predicted. Such a step stays without a figure."""
    now, *then = predict([plain, *(changed(plain, step.changes) for step in steps)])
    return [
        step if now is None or peak is None else replace(step, saved_bytes=now - peak)
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


def _step(changes: Mapping[str, Any], why: str) -> Mitigation:
    return Mitigation(" ".join(shell_override(key, value) for key, value in changes.items()), why, changes)


def _typed(variant: Variant) -> str:
    """The preset of a variant on a quantised base, and each value that differs from the dataclass's default."""
    preset, more = f"variant={variant.name}", {f.name: f.default for f in fields(variant) if f.default is not MISSING}
    if not (CONF / "variant" / f"{variant.name}.yaml").is_file():
        preset, more = "variant=qlora_r16", {"r": None, **more}
    own = {key: getattr(variant, key) for key, default in more.items() if getattr(variant, key) != default}
    return " ".join([preset, *(shell_override(f"++variant.{key}", value) for key, value in own.items())])
