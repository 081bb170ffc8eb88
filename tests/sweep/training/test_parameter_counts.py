"""Which share of the blocks is adapted or quantised, against counts from the shapes in the config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sweep.core.measurements import ADAPTED_FRACTION, QUANTIZED_FRACTION
from sweep.diagnostics import sanity_checks
from sweep.training.parameter_counts import block_fractions
from sweep.variants import Variant
from sweep.variants.full import Full
from sweep.variants.lora import LoRA, QLoRA

WIDTH, INNER, EXPERTS, LAYERS = 64, 96, 4, 2
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 64, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
}  # fmt: skip
ATTENTION = 4 * WIDTH * WIDTH  # of one block
RATE = {"learning_rate": 1e-4}
LORA = LoRA(name="lora", r=2, alpha=4, **RATE)


def fractions(kind: str, variant: Variant, folder: Any = None) -> dict[str, float]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES))
    quantization = variant.quantization(torch.float32)
    if quantization is not None:
        model.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization, device_map={"": "cpu"})
    return block_fractions(variant.wrap(model, "CAUSAL_LM", False), model)


def test_all_linear_layers_of_a_dense_model_are_all_of_its_blocks():
    assert fractions("llama", LORA) == {ADAPTED_FRACTION: 1.0, QUANTIZED_FRACTION: 0.0}


def test_named_layers_are_their_share():
    """Queries and values are 2 of 4 · 64² + 3 · 64 · 96 weights."""
    queries_and_values = LoRA(name="lora", r=2, alpha=4, target_modules=["q_proj", "v_proj"], **RATE)
    share = 2 * WIDTH * WIDTH / (ATTENTION + 3 * WIDTH * INNER)
    assert fractions("llama", queries_and_values)[ADAPTED_FRACTION] == pytest.approx(share)


def test_experts_that_are_no_linear_layers_are_not_adapted():
    """GPT-OSS has its experts in tensors of three dimensions: gate and up, and down. The router is a parameter too."""
    experts = EXPERTS * 3 * WIDTH * INNER
    share = ATTENTION / (ATTENTION + experts + EXPERTS * WIDTH)
    found = fractions("gpt_oss", LORA)
    assert found[ADAPTED_FRACTION] == pytest.approx(share)
    assert "the adapters reach 18% of the weights" in " ".join(sanity_checks.warnings(found, True, 1e-4, LORA))


def test_full_fine_tuning_has_no_base_that_could_be_covered():
    assert fractions("llama", Full(name="fft", **RATE)) == {}


def test_4_bit_weights_count_by_their_elements(tmp_path: Any):
    found = fractions("llama", QLoRA(name="qlora", r=2, alpha=4, **RATE), tmp_path)
    assert found == {ADAPTED_FRACTION: 1.0, QUANTIZED_FRACTION: 1.0}


def test_experts_that_stay_in_16_bits_give_a_warning(tmp_path: Any):
    variant = QLoRA(name="qlora", r=2, alpha=4, **RATE)
    found = fractions("mixtral", variant, tmp_path)
    assert found[QUANTIZED_FRACTION] == pytest.approx(ATTENTION / (ATTENTION + EXPERTS * (3 * WIDTH * INNER + WIDTH)))
    assert "of the weights of the blocks are quantised" in " ".join(sanity_checks.warnings(found, True, 1e-4, variant))
