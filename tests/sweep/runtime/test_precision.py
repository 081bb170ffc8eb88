"""The types of weights while they train, for each family of variants on a checkpoint in 16 bits."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import pytest
import torch
from conftest import compose
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, set_seed

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.core.reporter import silent
from sweep.models.pretrained import Pretrained
from sweep.runtime import cuda_device, precision
from sweep.training_run import prepare

pytestmark = pytest.mark.slow
FAMILIES = ["fft", "bitfit", "last_layer", "ln_tuning", "lora_r8", "dora_r16", "ia3", "prompt_tuning", "prefix_tuning"]
HALF = {torch.bfloat16, torch.float16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder with biases, and an encoder without a classification head."""
    folder = tmp_path_factory.mktemp("models")
    biases = {"attention_bias": True, "mlp_bias": True}
    return {"CAUSAL_LM": checkpoints.llama(folder / "llama", **biases), "SEQ_CLS": checkpoints.bert(folder / "bert")}


def wrapped(folders: dict[str, Path], name: str, task_type: str, dtype: str = "bf16") -> torch.nn.Module:
    auto_class = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}[task_type]
    set_seed(0)
    base = Pretrained(path=str(folders[task_type]), dtype=dtype).load(auto_class, None, "cpu")
    return parse(compose(f"variant={name}")).variant.wrap(base, task_type, False)


def types(model: torch.nn.Module, trains: bool) -> set[torch.dtype]:
    return {p.dtype for p in model.parameters() if p.requires_grad == trains}


@pytest.mark.long
@pytest.mark.parametrize("compute", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "SEQ_CLS"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_that_trains_is_fp32(name: str, task_type: str, compute: str, folders: dict[str, Path]):
    """Also biases, norms, blocks and new heads. Frozen matrices keep the checkpoint's type, unless PyTorch could not
    multiply it. The model then trains, and predicts, in each precision."""
    if (name, task_type) == ("prefix_tuning", "SEQ_CLS"):
        pytest.skip("prefix tuning needs a decoder")
    model = wrapped(folders, name, task_type)
    had_half = types(model, trains=True) & HALF
    matrices = {p: p.dtype for p in model.parameters() if not p.requires_grad and p.dim() > 1}
    precision.cast_weights(model, compute, "fp32")
    assert types(model, trains=True) == {torch.float32}
    for matrix, before in matrices.items():
        expected = {"fp32": torch.float32 if had_half else before, "bf16": before, "fp16": torch.float16}[compute]
        assert matrix.dtype == expected
    ids = torch.tensor([[5, 6, 7, 8]])
    labels = ids if task_type == "CAUSAL_LM" else torch.tensor([1])
    with precision.autocast(compute, "cpu"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        with torch.no_grad():
            assert torch.isfinite(model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("dtype", "compute", "held"),
    [("bf16", "bf16", torch.bfloat16), ("bf16", "fp16", torch.float32), ("fp16", "bf16", torch.float32)],
)
def test_the_checkpoint_s_type_is_kept_on_demand_where_it_can_train(
    dtype: str, compute: str, held: torch.dtype, folders: dict[str, Path]
):
    """PyTorch has no CUDA kernel that unscales bf16 gradients, and fp16 gradients without a scale vanish."""
    model = wrapped(folders, "fft", "CAUSAL_LM", dtype)
    precision.cast_weights(model, compute, "checkpoint")
    assert types(model, trains=True) == {held}


def test_tied_weights_stay_tied(folders: dict[str, Path]):
    base = Pretrained(path=str(folders["CAUSAL_LM"]), dtype="bf16").load(AutoModelForCausalLM, None, "cpu")
    base.config.tie_word_embeddings = True
    base.lm_head.weight = base.model.embed_tokens.weight
    precision.cast_weights(base.requires_grad_(True), "bf16", "fp32")
    assert base.lm_head.weight is base.model.embed_tokens.weight
    assert base.lm_head.weight.dtype == torch.float32


def test_bf16_on_a_gpu_without_it_is_refused_before_the_study(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(cuda_device, "require_usable", lambda: None)
    with pytest.raises(
        UserError, match=r"bf16 needs a GPU of compute capability 8\.0 or higher, and Tesla T4 has less"
    ):
        prepare(compose("train.precision=bf16"), silent)


def test_fsdp_with_16_bit_weights_is_refused():
    sharded = ["train.devices_per_run=2", "train.parallelism=fsdp", "train.trained_weights=checkpoint"]
    with pytest.raises(ConfigError, match="accelerate trains weights in fp32 under fsdp"):
        parse(compose(*sharded))
