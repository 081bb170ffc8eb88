"""What would make a run fit: one change after the other, each with the bytes that it saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.memory.gpu_catalog import needed_bytes
from sweep.memory.prediction import Prediction, Unpredictable

Config = Mapping[str, Any]
Predict = Callable[[Config], Prediction | Unpredictable]


@dataclass(frozen=True)
class Mitigation:
    """`change` as overrides, `what` it means in words. It is taken after those before it; `saved_bytes` may be negative
    where a change costs memory, and such a step is left out again."""

    change: str
    what: str
    saved_bytes: int
    needed_bytes: int


def remedies(config: Config, capacity_bytes: int, predict: Predict) -> list[Mitigation]:
    """Changes that save something, one after another until it fits; all of them where it never does.

    In the order of what they cost: time of evaluation, time of training, then the optimizer's precision, then the
    variant, and the length of sequences last, since it changes what is learned from.
    """
    steps: list[Mitigation] = []
    before = predict(config)
    if not isinstance(before, Prediction):
        return steps
    held = needed_bytes(before)
    for change, what, changed in _changes(config):
        after = predict(changed(config))
        if not isinstance(after, Prediction):
            continue
        saved = held - needed_bytes(after)
        if saved <= 0:
            continue
        config, held = changed(config), needed_bytes(after)
        steps.append(Mitigation(change, what, saved, held))
        if held <= capacity_bytes:
            break
    return steps


def _changes(config: Config) -> Iterator[tuple[str, str, Callable[[Config], Config]]]:
    train, variant = config["train"], config["variant"]
    at_once = train["eval_batch_size"]
    for size in dict.fromkeys((at_once // 4, at_once // 16, 1)):
        if 0 < size < at_once:
            yield (
                f"train.eval_batch_size={size}",
                "fewer answers at a time: a slower evaluation, the same scores",
                lambda c, size=size: _with(c, "train", eval_batch_size=size),
            )
    if not train["activation_checkpointing"]:
        yield (
            "train.activation_checkpointing=true",
            "activations are computed twice: about a third slower, the same result",
            lambda c: _with(c, "train", activation_checkpointing=True),
        )
    micro, accumulated = train["micro_batch_size"], train["gradient_accumulation_steps"]
    if micro > 1:
        yield (
            f"train.micro_batch_size=1 train.gradient_accumulation_steps={micro * accumulated}",
            "the same batch in smaller pieces: slower, the same result",
            lambda c: _with(c, "train", micro_batch_size=1, gradient_accumulation_steps=micro * accumulated),
        )
    if not train["optimizer"].startswith("paged") and not variant.get("paged_optimizer"):
        for name, what in (
            ("adamw_8bit", "the optimizer's state in 8 bits"),
            ("paged_adamw_8bit", "and moved to the host's memory where the card has none left: slower"),
        ):
            yield f"train.optimizer={name}", what, lambda c, name=name: _with(c, "train", optimizer=name)
    if variant["_target_"].endswith(".LoRA"):
        rest = {"name": f"q{variant['name']}", "_target_": variant["_target_"].replace("LoRA", "QLoRA")}
        yield (
            f"variant=q{variant['name']}",
            "the base held in 4 bits",
            lambda c: {**c, "variant": {**c["variant"], **_NF4, **rest}},
        )
    elif variant["_target_"].endswith(".Full"):
        yield (
            "variant=qlora_r16",
            "adapters on a base held in 4 bits, instead of all weights",
            lambda c: {**c, "variant": {**_QLORA_R16, "learning_rate": variant["learning_rate"]}},
        )
    for length in (train["max_length"] // 2, train["max_length"] // 4):
        if length >= 64:
            yield (
                f"train.max_length={length}",
                "longer examples are cut: what is learned from changes",
                lambda c, length=length: _with(c, "train", max_length=length),
            )


_NF4 = {"quant_type": "nf4", "double_quantization": True, "paged_optimizer": True}
_QLORA_R16 = {
    "_target_": "sweep.variants.lora.QLoRA", "name": "qlora_r16", "r": 16, "alpha": 32, "target_modules": "all-linear",
    **_NF4,
}  # fmt: skip


def _with(config: Config, group: str, **values: Any) -> Config:
    return {**config, group: {**config[group], **values}}
