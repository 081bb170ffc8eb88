"""Peak memory of training by a closed form, in bytes: a formula that a person can check by hand.

It covers dense gated decoders (Llama, Mistral, Qwen2) with a fused attention kernel, and refuses other runs with a
reason: the execution on fake tensors (`simulation`) covers them. Each term states where it comes from: the models' code
in transformers 5 and PEFT 0.21, checked against the meter. Nothing is fitted (docs/memory-prediction.md).

Letters: T tokens of the longest micro-batch, V vocabulary size; bytes per element: `w` of a stored weight, `c` of a
factor in a matrix product, `a` of the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweep.config.schema import parse
from sweep.core.errors import UserError
from sweep.memory.closed_form.activations import TrainingStep
from sweep.memory.closed_form.decoder import Decoder, NotCovered
from sweep.memory.closed_form.static_terms import Bytes, Longest
from sweep.memory.prediction import Machine, Prediction, Unpredictable
from sweep.tasks.batching import positions_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweep.config.schema import RunConfig

BAND = 0.02  # the error is 0.1% at 8 billion parameters, and 1.5% at 50 million, where the allocator's rounding counts


def predict_by_formula(
    config: Mapping[str, Any], machine: Machine, longest: Longest | None = None
) -> Prediction | Unpredictable:
    """Peak of the train phase; Unpredictable, with the reason, for what the formula does not cover. By default, the
    sequences of the longest micro-batch have `train.max_length` tokens, and it has padding if they are several."""
    try:
        parsed = parse(config)
        train = parsed.train
        if longest is None and train.max_length is None:
            return Unpredictable(reason="train.max_length is null: the data decides it; give a length in tokens")
        longest = longest or Longest(train.micro_batch_size, train.max_length, padded=train.micro_batch_size > 1)
        return of_run(parsed, machine, longest, parsed.model.architecture())
    except UserError as error:
        return Unpredictable(reason=str(error))


def of_run(
    config: RunConfig, machine: Machine, longest: Longest, architecture: PretrainedConfig
) -> Prediction | Unpredictable:
    """The same for a parsed config and the model's config."""
    keys = architecture.to_dict()
    positions = positions_in(keys)
    if positions is not None and (config.train.max_length or longest.length) > positions:
        return Unpredictable(
            reason=f"train.max_length = {config.train.max_length} exceeds the model's {positions} positions"
        )
    try:
        return closed_form(config, longest, machine, keys)
    except NotCovered as error:
        return Unpredictable(reason=f"the closed form does not apply: {error}")


def closed_form(config: RunConfig, longest: Longest, machine: Machine, architecture: Mapping[str, Any]) -> Prediction:
    """The memory at the moment of a step that needs most. `architecture` holds the keys of config.json.

    Raises:
        NotCovered: where a term is missing for this model, variant or kernel.
    """
    step = TrainingStep.of(config, longest, machine, Decoder.of(architecture, config.model.attention))
    moments = dict(_moments(step))
    where = max(moments, key=lambda moment: moments[moment].total())
    held = {category: size for category, size in moments[where].items() if size}
    return Prediction(
        tier="formula",
        allocated_bytes=sum(held.values()),
        requested_bytes=sum(size for category, size in held.items() if category != "workspaces"),
        paged_bytes=step.paged_bytes,
        peak_at={"optimizer": "optimizer", "end of forward": "forward"}.get(where, "backward"),
        breakdown=held,
        relative_band=BAND,
        assumptions={
            "longest_micro_batch": longest.as_text(),
            "peak": _MOMENTS[where],
            "weights": f"{step.w} bytes each, matrices multiplied in {step.c}",
            "optimizer": step.optimizer,
        },
    )


_MOMENTS = {
    "loss": "at the start of backward: all kept activations and the loss",
    "end of forward": "at the end of forward: the logits in both precisions, and the weights that autocast has cast",
    "final norm": "in the backward of the last norm",
    "last layer": "in the backward of the last layer",
    "first layer": "in the backward of the first layer: nearly all gradients and one layer's activations",
    "end of backward": "at the end of backward: all gradients",
    "optimizer": "in the optimizer's step",
}


def _moments(step: TrainingStep) -> Iterator[tuple[str, Bytes]]:
    """The moments of a step that can be its peak, with the bytes that are alive then."""
    static, layers = step.static(), step.model.layers
    rest = step.head_gradient()
    all_gradients = step.gradients(layers) + rest + step.embedding_gradient()
    earlier = all_gradients if step.accumulates else Bytes()  # of the micro-batches before

    yield "loss", static + earlier + step.kept(layers) + step.loss()
    if step.autocast:
        yield "end of forward", static + earlier + step.kept(layers) + step.logits()
    yield "final norm", static + (earlier or rest) + step.kept(layers) + step.norm_backward()
    busy = step.layer_backward()
    yield "last layer", static + (earlier or rest) + step.kept(layers, recomputed=True) + busy
    yield "first layer", static + (earlier or step.gradients(layers - 1) + rest) + step.kept(1, True) + busy
    yield "end of backward", static + all_gradients + step.tied_embedding()
    yield "optimizer", static + all_gradients + step.optimizer_temporary()
