"""Peak memory of training by a closed form: the worksheet that one can follow with a pencil, in bytes.

For dense gated decoders (Llama, Mistral, Qwen2) with a fused attention kernel, trained by the Hugging Face Trainer.
Each term says where it comes from; "kept" is what autograd holds from forward to backward, read from the models' code
in transformers 5 and PEFT 0.21 and checked against the meter. Nothing is fitted. What it does not cover it refuses, and
says why: the execution on fake tensors (`trace`) covers all of it.

Letters: T tokens of the longest micro-batch (B sequences of S), H hidden, I intermediate, V vocabulary, L layers; `w`
bytes of a held weight, `c` of what matrices are multiplied in, `a` of the residual stream.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.config import parse
from sweep.errors import UserError
from sweep.memory.architecture import Decoder, NotCovered
from sweep.memory.facts import Facts
from sweep.memory.prediction import Machine, Prediction, Unpredictable
from sweep.variants.full import Full
from sweep.variants.lora import LoRA, QLoRA

if TYPE_CHECKING:
    from sweep.config import RunConfig

BAND = 0.03  # the error that is declared: 1% against the trace in its own field, and what that field is known by
_RNG_BYTES = 5056  # the state of PyTorch's CPU generator, which checkpointing keeps for each layer
_QUANT_BLOCK, _NESTED_BLOCK = (
    64,
    256,
)  # elements per scale in bitsandbytes' NF4, scales per scale of double quantisation
_OPTIMIZER_BLOCK = 256  # elements per scale of an 8-bit optimizer state
_SMALL_8BIT, _SMALL_PAGED = 4096, 100_000  # elements below which bitsandbytes keeps 32 bits, or does not page

Bytes = Counter[str]  # by category of `prediction.CATEGORIES`


def predict_by_formula(
    config: Mapping[str, Any], machine: Machine, facts: Facts | None = None
) -> Prediction | Unpredictable:
    """Peak of the train phase for a resolved plain config. Unpredictable, with the reason, outside the formula's field.

    Without `facts`, the longest micro-batch is as long as `train.max_length` allows, and padded where it has more than
    one sequence.
    """
    try:
        parsed = parse(config)
        return closed_form(parsed, facts or declared(parsed), machine, parsed.model.architecture().to_dict())
    except NotCovered as error:
        return Unpredictable(reason=f"the closed form does not apply: {error}")
    except UserError as error:
        return Unpredictable(reason=str(error))


def declared(config: RunConfig) -> Facts:
    """The longest micro-batch that the config allows."""
    train = config.train
    return Facts(
        micro_batch_size=train.micro_batch_size,
        length=train.max_length,
        padded=train.micro_batch_size > 1,
        prompt_batch_size=train.eval_batch_size,
        prompt_length=train.max_length,
        from_data=False,
    )


def closed_form(config: RunConfig, facts: Facts, machine: Machine, architecture: Mapping[str, Any]) -> Prediction:
    """The highest of the moments of a step that can be the peak.

    Raises:
        NotCovered: where a term is missing for this model, variant or kernel.
    """
    step = _Step.of(config, facts, machine, Decoder.of(architecture, config.model.attention))
    moments = dict(step.moments())
    where = max(moments, key=lambda moment: moments[moment].total())
    held = {category: size for category, size in moments[where].items() if size}
    return Prediction(
        tier="formula",
        allocated_bytes=sum(held.values()),
        requested_bytes=sum(size for category, size in held.items() if category != "workspaces"),
        peak_at={"optimizer": "optimizer", "end of forward": "forward"}.get(where, "backward"),
        breakdown=held,
        relative_band=BAND,
        assumptions={
            "longest_micro_batch": facts.as_text(),
            "peak": _WORDS[where],
            "weights": f"{step.w} bytes each, matrices multiplied in {step.c}",
            "optimizer": step.optimizer,
        },
    )


_WORDS = {
    "loss": "as backward begins: all kept activations and the loss",
    "end of forward": "as forward ends: the logits in both precisions, and the weights that autocast has cast",
    "final norm": "in the backward of the last norm",
    "last layer": "in the backward of the last layer",
    "first layer": "in the backward of the first layer: nearly all gradients and one layer's activations",
    "end of backward": "as backward ends: all gradients",
    "optimizer": "in the optimizer's step",
}


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One optimizer step of one variant."""

    model: Decoder
    w: int
    c: int
    a: int
    autocast: bool
    lora: LoRA | None
    quantized: QLoRA | None
    checkpointing: bool
    accumulates: bool
    optimizer: str
    facts: Facts
    machine: Machine

    @classmethod
    def of(cls, config: RunConfig, facts: Facts, machine: Machine, model: Decoder) -> _Step:
        variant, train = config.variant, config.train
        if type(variant) not in (Full, LoRA, QLoRA):
            raise NotCovered(f"variant {variant.name} is a {type(variant).__name__}")
        lora = variant if isinstance(variant, LoRA) else None
        if lora is not None and (lora.dora or lora.dropout):
            raise NotCovered("DoRA and dropout in adapters have terms of their own")
        if config.task.task_type != "CAUSAL_LM":
            raise NotCovered(f"the task is {config.task.task_type}, not language modelling")
        w = {"fp32": 4, "bf16": 2, "fp16": 2, "auto": model.weight_bytes}[config.model.dtype]
        half = _half(train.precision, machine)
        quantized = variant if isinstance(variant, QLoRA) else None
        if lora is None and train.precision == "fp16":
            w = 4  # loss scaling wants gradients in fp32
        a = 4 if quantized else w  # prepare_model_for_kbit_training makes norms and embeddings fp32
        c = 2 if half else a
        model.check_kernel(c, facts, machine)
        return cls(
            model=model,
            w=w,
            c=c,
            a=a,
            autocast=half,
            lora=lora,
            quantized=quantized,
            checkpointing=train.activation_checkpointing,
            accumulates=train.gradient_accumulation_steps > 1,
            optimizer=variant.optimizer(machine.kind) or train.optimizer,
            facts=facts,
            machine=machine,
        )

    @property
    def tokens(self) -> int:
        return self.facts.micro_batch_size * self.facts.length

    @property
    def targets(self) -> tuple[str, ...]:
        """Matrices that have an adapter."""
        if self.lora is None:
            return ()
        if self.lora.target_modules == "all-linear":
            return tuple(self.model.linear)
        unknown = set(self.lora.target_modules) - set(self.model.linear)
        if unknown:
            raise NotCovered(f"target_modules {', '.join(sorted(unknown))}")
        return tuple(self.lora.target_modules)

    def moments(self) -> Iterator[tuple[str, Bytes]]:
        """The moments of a step that can be its peak, and what is alive then."""
        static, layers = self.static(), self.model.layers
        rest = self.head_gradient()
        all_gradients = self.gradients(layers) + rest + self.embedding_gradient()
        earlier = all_gradients if self.accumulates else Bytes()  # of the micro-batches before

        yield "loss", static + earlier + self.kept(layers) + self.loss()
        if self.autocast:
            yield "end of forward", static + earlier + self.kept(layers) + self.logits()
        yield "final norm", static + (earlier or rest) + self.kept(layers) + self.norm_backward()
        busy = self.layer_backward()
        yield "last layer", static + (earlier or rest) + self.kept(layers, recomputed=True) + busy
        yield "first layer", static + (earlier or self.gradients(layers - 1) + rest) + self.kept(1, True) + busy
        yield "end of backward", static + all_gradients + self.tied_embedding()
        yield "optimizer", static + all_gradients + self.optimizer_temporary()

    # ---- what is always there

    def static(self) -> Bytes:
        """Weights, optimizer state, buffers, the batch, and cuBLAS's workspaces."""
        model, found = self.model, Bytes()
        if self.quantized is not None:
            for rows, columns in model.linear.values():
                found.update(_nf4(rows * columns, model.layers, self.quantized.double_quantization))
            found["frozen_weights"] = 4 * (model.other_parameters - model.biases) + self.w * model.biases
        elif self.lora is not None:
            found["frozen_weights"] = self.w * model.parameters
        found["trainable_weights"] = sum(count * size for count, size in self.trainable()) * self.trainable_bytes
        found["optimizer_state"] = sum(count * self.state_bytes(size) for count, size in self.trainable())
        found["buffers_and_batch"] = 8 * self.tokens * 3 + 2 * self.a * self.facts.length * model.head_width
        if self.facts.padded:
            found["buffers_and_batch"] += self.facts.micro_batch_size * self.facts.length**2
        if self.machine.kind == "cuda":
            found["workspaces"] = 2 * _workspace_bytes(self.machine)
        return found

    def trainable(self) -> list[tuple[int, int]]:
        """(how many, elements of each) of the tensors that train. LoRA has r·in and r·out for each matrix."""
        model = self.model
        if self.lora is None:
            matrices = [(model.layers, rows * columns) for rows, columns in model.linear.values()]
            heads = [(1 if model.tied else 2, model.vocabulary * model.hidden)]
            return [*matrices, *heads, (2 * model.layers + 1, model.hidden), *((model.layers, n) for n in model.bias)]
        shapes = (model.linear[name] for name in self.targets)
        return [(model.layers, self.lora.r * side) for rows, columns in shapes for side in (rows, columns)]

    @property
    def trainable_bytes(self) -> int:
        """PEFT keeps adapters in fp32, whatever the base is in (`autocast_adapter_dtype`)."""
        return self.w if self.lora is None else 4

    def state_bytes(self, elements: int) -> int:
        """AdamW's two moments for one tensor, and its step counter.

        PyTorch's are in the parameter's own type; bitsandbytes' in fp32, or in 8 bits with a scale for each 256. Paged
        state is managed memory, which the allocator does not see; on the CPU it is plain.
        """
        if self.optimizer.startswith("adamw_torch"):
            return 2 * self.trainable_bytes * elements + 4
        if "paged" in self.optimizer and self.machine.kind == "cuda" and elements >= _SMALL_PAGED:
            return 0
        if "8bit" in self.optimizer and elements >= _SMALL_8BIT:
            return 2 * elements + 2 * 4 * math.ceil(elements / _OPTIMIZER_BLOCK)
        return 2 * 4 * elements

    # ---- what grows in forward

    def kept(self, layers: int, recomputed: bool = False) -> Bytes:
        """What autograd holds of `layers` layers. With checkpointing their inputs alone, and of the one that is being
        recomputed all."""
        found = Bytes()
        if self.checkpointing:
            found["activations"] = layers * (self.tokens * self.model.hidden * self.a + _RNG_BYTES)
            if recomputed:
                found += self.layer()
                if self.a == 4:  # its first norm keeps the input itself, which is counted; from 16 bits, a cast of it
                    found["activations"] -= 4 * self.tokens * self.model.hidden
            return found
        for _ in range(layers):
            found += self.layer()
        if self.lora is not None and layers == self.model.layers:
            found -= self.not_kept_by_the_first()
        return found

    def layer(self) -> Bytes:
        """One decoder layer."""
        m, tokens, c = self.model, self.tokens, self.c
        norm = tokens * m.hidden * (4 + (self.a if self.lora is None else 0)) + 4 * tokens
        queries, keys = m.heads * m.head_width, m.key_heads * m.head_width
        if self.facts.padded:  # transformers repeats grouped keys and values where there is a mask
            keys = queries
        attention = tokens * (c * (2 * queries + 2 * keys) + 4 * m.heads)
        if self.facts.padded:
            attention += c * self.facts.micro_batch_size * self.facts.length**2  # the mask, made additive
        activation = (
            4 if self.quantized else c
        )  # PEFT clones what a 4-bit layer returns, and adds in the residual's type
        gated = 3 * tokens * m.intermediate * activation  # gate, silu(gate), up
        found = Bytes(activations=2 * norm + attention + gated + sum(self.inputs()))
        if self.autocast and self.w == 4 and self.quantized is None:
            found["temporaries"] = 2 * m.linear_per_layer  # weights cast for the product, kept for its backward
        if self.autocast:
            found["temporaries"] += 2 * self.adapter_elements
        return found

    @property
    def adapter_elements(self) -> int:
        """Of one layer: r·(in + out) for each matrix that has an adapter."""
        return 0 if self.lora is None else sum(self.lora.r * sum(self.model.linear[name]) for name in self.targets)

    def inputs(self) -> Iterator[int]:
        """What the matrices of one layer keep of their inputs.

        A trained matrix keeps its input: one tensor for all that share it, or under autocast from fp32 a cast for each.
        A frozen one keeps nothing, and its adapter a copy: cast to fp32 for the adapter, and under autocast back.
        """
        m, tokens = self.model, self.tokens
        cast = self.autocast and self.a == 4
        groups = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
        for names in groups:
            width = m.linear[names[0]][0]
            adapted = [name for name in names if name in self.targets]
            if self.lora is None:
                if names != ("o_proj",):  # attention's output is kept by attention already
                    yield tokens * width * self.c * (len(names) if cast and names != ("down_proj",) else 1)
                continue
            if not adapted:
                continue
            yield len(adapted) * tokens * self.lora.r * self.c_of_adapters
            if self.autocast:
                shares = self.quantized is not None and names == ("o_proj",)
                yield len(adapted) * tokens * width * 2 if not shares else tokens * width * 2
            elif self.a == 4:
                yield 0 if names == ("o_proj",) else tokens * width * 4
            else:
                yield len(adapted) * tokens * width * 4

    @property
    def c_of_adapters(self) -> int:
        return 2 if self.autocast else 4

    def not_kept_by_the_first(self) -> Bytes:
        """The embeddings are frozen, so that the first norm has no backward, nor the matrices that it feeds."""
        model, first = self.model, ("q_proj", "k_proj", "v_proj")
        found = Bytes(activations=4 * self.tokens * (model.hidden + 1))
        if self.autocast and self.w == 4 and self.quantized is None:
            found["temporaries"] = 2 * sum(math.prod(model.linear[name]) for name in first)
        if self.autocast and self.lora is not None:
            found["temporaries"] += 2 * self.lora.r * model.hidden * len(set(first) & set(self.targets))
        return found

    def loss(self) -> Bytes:
        """The head and the loss, as the loss's backward ends: log-probabilities, their gradient and the logits', each
        in fp32 (`ForCausalLMLoss` casts, and the Trainer drops the logits): 12·T·V bytes."""
        m, tokens = self.model, self.tokens
        found = Bytes(logits_and_loss=12 * tokens * m.vocabulary)
        norm = 4 * tokens * (m.hidden + 1)
        if self.lora is None:
            norm += tokens * m.hidden * (self.a + self.c)
        found["activations"] = norm
        if self.autocast and self.a == 4:
            found["temporaries"] = 2 * m.vocabulary * m.hidden  # the head's weight, cast
        return found

    def logits(self) -> Bytes:
        """Under autocast, as forward ends: log-probabilities, the logits in 16 bits, and in fp32 as accelerate hands
        them on: 10·T·V bytes; and the casts of weights that train, which autocast keeps until then."""
        found = self.loss()
        found["logits_and_loss"] = 10 * self.tokens * self.model.vocabulary
        found["activations"] += self.a * self.tokens * self.model.hidden  # what the head was given
        cast = self.model.linear_per_layer if self.lora is None and self.w == 4 else self.adapter_elements
        if self.checkpointing:
            found["temporaries"] += 2 * self.model.layers * cast
        return found

    # ---- what grows in backward

    def norm_backward(self) -> Bytes:
        """The last norm is computed in fp32: what it keeps, and five temporaries of its backward."""
        return Bytes(temporaries=6 * 4 * self.tokens * self.model.hidden)

    def layer_backward(self) -> Bytes:
        """Beside what the layer keeps: the gated product's gradients, and the gradient of the residual stream."""
        m, tokens = self.model, self.tokens
        stream = self.a  # the gradient of the residual stream
        if self.lora is None:
            grown = 2 * self.c  # d(gate·up), d gate, d up come, the product that the last matrix kept is gone
        elif self.quantized is not None or (not self.autocast and self.a == 4):
            grown = 12 - (2 if self.autocast else 4)  # the same three in fp32, less the kept input of the last matrix
        else:  # still in forward: the product, its cast to fp32 for the adapter; norms' outputs, the stream, its sum
            grown, stream = 6 if self.autocast else 4, 14 if self.a == 4 else 10
        found = Bytes(temporaries=grown * tokens * m.intermediate + tokens * m.hidden * stream)
        if self.lora is None:
            found["gradients"] = self.w * math.prod(m.linear["down_proj"])
        return found

    def gradients(self, layers: int) -> Bytes:
        """Of the weights inside `layers` layers; a gradient has its weight's type."""
        model = self.model
        if self.lora is None:
            per_layer = model.linear_per_layer + sum(model.bias) + 2 * model.hidden
        else:
            per_layer = self.adapter_elements
        return Bytes(gradients=layers * per_layer * self.trainable_bytes)

    def head_gradient(self) -> Bytes:
        model = self.model
        return Bytes(gradients=0 if self.lora else self.w * (model.vocabulary * model.hidden + model.hidden))

    def embedding_gradient(self) -> Bytes:
        """None of its own where the head's weight is the embedding's."""
        model = self.model
        return Bytes(gradients=0 if self.lora or model.tied else self.w * model.vocabulary * model.hidden)

    def tied_embedding(self) -> Bytes:
        """The embedding's share of a tied gradient, before it is added to the head's."""
        model = self.model
        return Bytes(temporaries=self.w * model.vocabulary * model.hidden if model.tied and not self.lora else 0)

    def optimizer_temporary(self) -> Bytes:
        """PyTorch's foreach loop makes one tensor for each that trains, its plain loop for one at a time (on the CPU);
        the fused kernel, which is the default here, and bitsandbytes' make none."""
        if self.optimizer != "adamw_torch":
            return Bytes()
        sizes = [(count, size * self.trainable_bytes) for count, size in self.trainable()]
        foreach = self.machine.kind == "cuda"
        return Bytes(temporaries=sum(n * size for n, size in sizes) if foreach else 2 * max(size for _, size in sizes))


def _nf4(elements: int, layers: int, double: bool) -> Bytes:
    """A 4-bit matrix in each of `layers` layers: half a byte for an element and a scale for each 64 of them, in fp32,
    or in 8 bits with an fp32 scale for each 256 (0.5625 and 0.5159 bytes in all), and the codes' tables."""
    blocks = math.ceil(elements / _QUANT_BLOCK)
    code = 16 * 4
    state = blocks + 4 * math.ceil(blocks / _NESTED_BLOCK) + 256 * 4 + 4 if double else 4 * blocks
    return Bytes(quantized_weights=layers * math.ceil(elements / 2), quantization_state=layers * (state + code))


def _half(precision: str, machine: Machine) -> bool:
    """Whether matrices are multiplied in 16 bits under autocast; "auto" is fp32 on a CPU only."""
    return machine.kind == "cuda" if precision == "auto" else precision != "fp32"


def _workspace_bytes(machine: Machine) -> int:
    """cuBLAS's workspace for each of two threads: 32 MiB since Hopper, 8.125 MiB before (CUDABlas.cpp)."""
    return 32 * 2**20 if (machine.capability or (8, 0)) >= (9, 0) else (2 * 4096 + 8 * 16) * 1024
