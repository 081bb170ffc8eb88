"""The memory of a training step that does not depend on activations: weights, their state, their gradients; in
bytes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sweep.memory.closed_form.decoder import Decoder, NotCovered
from sweep.memory.prediction import Machine
from sweep.variants.full import Full
from sweep.variants.lora import LoRA, QLoRA

if TYPE_CHECKING:
    from sweep.config.schema import RunConfig

_QUANT_BLOCK, _NESTED_BLOCK = 64, 256  # elements per scale of NF4, scales per scale of double quantisation
_OPTIMIZER_BLOCK = 256  # elements per scale of an 8-bit optimizer state
_SMALL_8BIT, _SMALL_PAGED = 4096, 100_000  # elements below which bitsandbytes keeps 32 bits, or does not page

Bytes = Counter[str]  # by category of `prediction.CATEGORIES`


class Longest(NamedTuple):
    """The longest micro-batch of a run; `workload.Workload` has the same fields, found in the data."""

    micro_batch_size: int
    length: int
    padded: bool

    def as_text(self) -> str:
        return (
            f"{self.micro_batch_size} × {self.length} tokens, {'with' if self.padded else 'without'} padding (assumed)"
        )


@dataclass(frozen=True, kw_only=True)
class Step:
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
    longest: Longest
    machine: Machine

    @classmethod
    def of(cls, config: RunConfig, longest: Longest, machine: Machine, model: Decoder) -> Step:
        variant, train = config.variant, config.train
        if type(variant) not in (Full, LoRA, QLoRA):
            raise NotCovered(f"variant {variant.name} is a {type(variant).__name__}")
        lora = variant if isinstance(variant, LoRA) else None
        if lora is not None and (lora.use_dora or lora.dropout):
            raise NotCovered("DoRA and dropout in adapters have terms of their own")
        if train.torch_compile or train.use_liger_kernel:
            raise NotCovered("compiled code and Liger's kernels keep other tensors")
        if train.loss is not None or train.label_smoothing or not isinstance(train.optimizer, str) or train.arguments:
            raise NotCovered("it knows neither train.loss, nor label smoothing, train.arguments and other optimizers")
        if config.task.task_type != "CAUSAL_LM":
            raise NotCovered(f"the task is {config.task.task_type}, not language modelling")
        compute = machine.precision(train.precision)
        held = model.dtype if config.model.dtype == "auto" else config.model.dtype
        w = _weight_bytes(held, compute, trains=lora is None, to_fp32=train.trained_weights == "fp32")
        half = compute != "fp32"
        quantized = variant if isinstance(variant, QLoRA) else None
        a = 4 if quantized else w  # prepare_model_for_kbit_training makes norms and embeddings fp32
        c = 2 if half else a
        model.check_kernel(c, longest.padded, machine)
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
            optimizer=train.optimizer_of(variant, machine.kind),
            longest=longest,
            machine=machine,
        )

    @property
    def tokens(self) -> int:
        return self.longest.micro_batch_size * self.longest.length

    @property
    def targets(self) -> tuple[str, ...]:
        """Matrices that have an adapter."""
        if self.lora is None:
            return ()
        if self.lora.target_modules == "all-linear":
            return tuple(self.model.linear)
        if isinstance(self.lora.target_modules, str):
            raise NotCovered(f"PEFT chooses the modules of target_modules = {self.lora.target_modules}; name them")
        unknown = set(self.lora.target_modules) - set(self.model.linear)
        if unknown:
            raise NotCovered(f"target_modules {', '.join(sorted(unknown))}")
        return tuple(self.lora.target_modules)

    @property
    def adapter_elements(self) -> int:
        """Adapter elements of one layer: r·(in + out) for each matrix that has an adapter."""
        return 0 if self.lora is None else sum(self.lora.r * sum(self.model.linear[name]) for name in self.targets)

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
        found["optimizer_state"] = sum(
            n * self.state_bytes(size) for n, size in self.trainable() if not self.pages(size)
        )
        found["buffers_and_batch"] = 8 * self.tokens * 3 + 2 * self.a * self.longest.length * model.head_width
        if self.longest.padded:
            found["buffers_and_batch"] += self.longest.micro_batch_size * self.longest.length**2
        if self.machine.kind == "cuda":
            found["workspaces"] = 2 * self.machine.workspace_bytes
        return found

    def trainable(self) -> list[tuple[int, int]]:
        """The tensors that train, as (count, elements of each). LoRA has r·in and r·out for each matrix."""
        model = self.model
        if self.lora is None:
            matrices = [(model.layers, rows * columns) for rows, columns in model.linear.values()]
            heads = [(1 if model.tied else 2, model.vocabulary * model.hidden)]
            return [*matrices, *heads, (2 * model.layers + 1, model.hidden), *((model.layers, n) for n in model.bias)]
        shapes = (model.linear[name] for name in self.targets)
        return [(model.layers, self.lora.r * side) for rows, columns in shapes for side in (rows, columns)]

    @property
    def trainable_bytes(self) -> int:
        """Bytes per trainable element. PEFT keeps adapters in fp32 for any base (`autocast_adapter_dtype`)."""
        return self.w if self.lora is None else 4

    def pages(self, elements: int) -> bool:
        """Whether the state of a tensor is in managed memory, which the allocator does not see."""
        return "paged" in self.optimizer and self.machine.kind == "cuda" and elements >= _SMALL_PAGED

    @property
    def paged_bytes(self) -> int:
        return sum(count * self.state_bytes(size) for count, size in self.trainable() if self.pages(size))

    def state_bytes(self, elements: int) -> int:
        """AdamW's two moments for one tensor, and its step counter.

        PyTorch's have the parameter's type; bitsandbytes' are in fp32, or in 8 bits with a scale for each 256.
        """
        if self.optimizer.startswith("adamw_torch"):
            return 2 * self.trainable_bytes * elements + 4
        if "8bit" in self.optimizer and elements >= _SMALL_8BIT:
            return 2 * elements + 2 * 4 * math.ceil(elements / _OPTIMIZER_BLOCK)
        return 2 * 4 * elements

    def gradients(self, layers: int) -> Bytes:
        """Gradients of the weights inside `layers` layers; a gradient has its weight's type."""
        model = self.model
        if self.lora is None:
            per_layer = model.linear_per_layer + sum(model.bias) + 2 * model.hidden
        else:
            per_layer = self.adapter_elements
        return Bytes(gradients=layers * per_layer * self.trainable_bytes)

    def head_gradient(self) -> Bytes:
        """The gradients of the output head and of the last norm."""
        model = self.model
        return Bytes(gradients=0 if self.lora else self.w * (model.vocabulary * model.hidden + model.hidden))

    def embedding_gradient(self) -> Bytes:
        """The gradient of the embeddings; nothing where the head shares their weight."""
        model = self.model
        return Bytes(gradients=0 if self.lora or model.tied else self.w * model.vocabulary * model.hidden)

    def tied_embedding(self) -> Bytes:
        """While the embedding's gradient is added to the head's, for tied weights: both, and their sum."""
        model = self.model
        return Bytes(temporaries=2 * self.w * model.vocabulary * model.hidden if model.tied and not self.lora else 0)

    def optimizer_temporary(self) -> Bytes:
        """Temporaries of the optimizer: PyTorch's foreach loop makes one for each tensor that trains, its plain loop
        (on the CPU) for one at a time. The fused kernel, the default here, and bitsandbytes' kernels make none."""
        if self.optimizer != "adamw_torch":
            return Bytes()
        sizes = [(count, size * self.trainable_bytes) for count, size in self.trainable()]
        foreach = self.machine.kind == "cuda"
        return Bytes(temporaries=sum(n * size for n, size in sizes) if foreach else 2 * max(size for _, size in sizes))


def _nf4(elements: int, layers: int, double: bool) -> Bytes:
    """A 4-bit matrix in each of `layers` layers: half a byte per element; per 64 elements a scale, in fp32, or in 8
    bits with an fp32 scale per 256 scales (0.5625 and 0.5159 bytes per element in all); and the tables of the codes."""
    blocks = math.ceil(elements / _QUANT_BLOCK)
    code = 16 * 4
    state = blocks + 4 * math.ceil(blocks / _NESTED_BLOCK) + 256 * 4 + 4 if double else 4 * blocks
    return Bytes(quantized_weights=layers * math.ceil(elements / 2), quantization_state=layers * (state + code))


def _weight_bytes(held: str, compute: str, *, trains: bool, to_fp32: bool) -> int:
    """Bytes of a weight of the base after `sweep.runtime.precision.cast_weights`."""
    if trains:
        return 2 if held == "bf16" and not to_fp32 and compute != "fp16" else 4
    held = compute if held == "fp16" else held
    return 4 if held == "fp32" else 2
