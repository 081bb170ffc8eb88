"""The closed form against the meter: a real training step, on a real model, in every mode that it covers."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import compose
from llama3 import A100, architecture
from transformers import AutoModelForCausalLM, LlamaConfig

from sweep.config.schema import parse
from sweep.memory.closed_form.estimate import predict_by_formula
from sweep.memory.closed_form.static_terms import Longest
from sweep.memory.prediction import Machine, Prediction, Unpredictable
from sweep.meters.cpu import LiveTensorMemory
from sweep.runtime import precision
from sweep.tasks.generation import pad_batch
from sweep.training.fit import fit

CPU = Machine(kind="cpu")
SMALL = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2000, "max_position_embeddings": 256,
}  # fmt: skip
BATCH, LENGTH = 2, 64
UNPADDED = Longest(BATCH, LENGTH, padded=False)


class PadToken:
    pad_token_id = 0


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama in fp32, in bf16 and in fp16."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    model.save_pretrained(folder / "fp32")
    model.bfloat16().save_pretrained(folder / "bf16")
    model.half().save_pretrained(folder / "fp16")
    return folder


def settings(folder: Path, variant: str, precision: str, *more: str) -> dict:
    return compose(
        "model=pretrained", f"model.path={folder}", f"variant={variant}", f"train.precision={precision}",
        "train.max_steps=2", f"train.micro_batch_size={BATCH}", f"train.max_length={LENGTH}", *more
    )  # fmt: skip


def measured_bytes(plain: dict) -> float:
    """The meter's reading of a real training on sequences of one length."""
    config = parse(plain)
    base = config.model.load(config.task.auto_class(), config.variant.quantization(None), "cpu")
    model = config.variant.wrap(base, "CAUSAL_LM", activation_checkpointing=False)  # the Trainer turns it on
    precision.cast_weights(model, config.train.precision, config.train.trained_weights)
    meter = LiveTensorMemory()
    examples = [{"input_ids": [1] * LENGTH, "labels": [1] * LENGTH}] * (config.train.batch_size * 2)
    with meter.phase("train"):
        fit(
            model, examples, pad_batch(PadToken()), config.train, learning_rate=1e-4, seed=0, meter=meter,
            optimizer=config.variant.optimizer("cpu"),
        )  # fmt: skip
    return meter.readings["memory/train_max_allocated_bytes"]


@pytest.mark.parametrize(
    ("weights", "compute", "variant", "checkpointing", "accumulation"),
    [
        ("fp16", "bf16", "fft", False, 1),
        ("fp16", "fp32", "lora_r16", False, 1),
        ("fp32", "fp32", "fft", False, 1),
        ("fp32", "fp32", "lora_r8", True, 1),
        ("fp32", "fp32", "qlora_r16", False, 2),
        ("fp32", "bf16", "fft", True, 2),
        ("fp32", "bf16", "lora_r8", False, 1),
        ("bf16", "bf16", "fft", False, 1),
        ("bf16", "fp32", "fft", True, 1),
        ("bf16 kept", "bf16", "fft", False, 1),
        ("bf16 kept", "bf16", "fft", True, 1),
        ("bf16", "bf16", "lora_r16", False, 1),
        ("bf16", "bf16", "lora_r16", True, 2),
        ("bf16", "bf16", "qlora_r16", False, 1),
        ("bf16", "bf16", "qlora_r16", True, 1),
        ("bf16", "fp32", "lora_r16", False, 1),
    ],
)
def test_it_agrees_with_the_meter_within_one_per_cent(
    weights: str, compute: str, variant: str, checkpointing: bool, accumulation: int, checkpoints: Path
):
    """The weights that train are fp32; "kept" keeps the type of the checkpoint."""
    dtype, kept = weights.split()[0], "kept" in weights
    plain = settings(
        checkpoints / dtype, variant, compute, f"train.trained_weights={'checkpoint' if kept else 'fp32'}",
        f"train.activation_checkpointing={checkpointing}",
        f"train.gradient_accumulation_steps={accumulation}",
    )  # fmt: skip
    predicted = predict_by_formula(plain, CPU, UNPADDED)
    assert isinstance(predicted, Prediction), predicted
    assert predicted.allocated_bytes == pytest.approx(measured_bytes(plain), rel=0.01)


def test_static_terms_of_llama3_8b(tmp_path: Path):
    """8,030,261,248 parameters (the model's card): four bytes for each weight and gradient and eight for the state, or
    half of that where the weights keep the type of the checkpoint."""
    for held, size in (("fp32", 4), ("checkpoint", 2)):
        plain = settings(architecture(tmp_path), "fft", "bf16", f"train.trained_weights={held}")
        found = predict_by_formula(plain, A100)
        assert found.breakdown["trainable_weights"] == found.breakdown["gradients"] == size * 8_030_261_248
        assert found.breakdown["optimizer_state"] == pytest.approx(2 * size * 8_030_261_248, rel=1e-6)
    lora = predict_by_formula(settings(architecture(tmp_path), "lora_r16", "bf16"), A100)
    adapters = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert lora.breakdown["trainable_weights"] == 4 * adapters
    assert lora.breakdown["frozen_weights"] == 2 * 8_030_261_248


@pytest.mark.parametrize(("double", "bytes_per_weight"), [(True, 0.5159), (False, 0.5625)])
def test_nf4_in_exact_bytes_per_parameter(double: bool, bytes_per_weight: float, tmp_path: Path):
    plain = settings(architecture(tmp_path), "qlora_r16", "bf16", f"variant.double_quantization={double}")
    found = predict_by_formula(plain, A100).breakdown
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert (found["quantized_weights"] + found["quantization_state"]) / linear == pytest.approx(
        bytes_per_weight, abs=1e-4
    )
    assert found["frozen_weights"] == 4 * (2 * 128256 * 4096 + 65 * 4096)  # embeddings, head and norms, in fp32


def test_paged_state_is_not_the_allocator_s(tmp_path: Path):
    """Of QLoRA's adapters on CUDA only the tensors of fewer than 100,000 elements keep their state there. The rest is
    counted apart, and the peak contains both."""
    folder = architecture(tmp_path)
    found = predict_by_formula(settings(folder, "qlora_r16", "bf16"), A100)
    small = 32 * 16 * (4096 * 9 + 2 * 1024)  # all but the three sides of 14336
    assert found.breakdown["optimizer_state"] == 8 * small
    assert found.paged_bytes == 8 * 32 * 16 * 3 * 14336
    plain = settings(folder, "qlora_r16", "bf16", "variant.paged_optimizer=false")
    without = predict_by_formula(plain, A100)
    assert without.paged_bytes == 0
    assert found.peak_bytes == pytest.approx(without.peak_bytes, rel=1e-4)  # a step counter for each tensor


@pytest.mark.parametrize(
    ("changed", "overrides", "said"),
    [
        ({"model_type": "gpt2"}, (), "gpt2"),
        ({"hidden_act": "gelu"}, (), "gelu"),
        ({}, ("model.attention=eager",), "model.attention=sdpa"),
        ({}, ("+variant.use_dora=true",), "DoRA"),
        ({}, ("train.precision=fp32", "model.dtype=fp32", "train.micro_batch_size=1"), "score matrix"),
    ],
)
def test_it_refuses_what_it_does_not_cover(changed: dict, overrides: tuple[str, ...], said: str, tmp_path: Path):
    folder = architecture(tmp_path, **changed)
    answer = predict_by_formula(settings(folder, "lora_r8", "bf16", *overrides), A100)
    assert isinstance(answer, Unpredictable)
    assert said in answer.reason
