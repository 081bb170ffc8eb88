"""Training: the order of batches, accumulation, repeatability, divergence, and what the variants train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import Losses
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, set_seed

from sweep.core.errors import UserError
from sweep.datasets import scan
from sweep.meters.cpu import LiveTensorMemory
from sweep.runtime import precision
from sweep.tasks.generation import IGNORED, encode_pairs, pad_batch
from sweep.training.batch_order import training_order
from sweep.training.divergence import Diverged, require_finite_weights
from sweep.training.fit import fit
from sweep.training.options import Train
from sweep.training.parameter_counts import count_parameters
from sweep.training.watcher import METERED_STEPS
from sweep.variants.full import Full
from sweep.variants.lora import LoRA, QLoRA


def train(**changes: object) -> Train:
    values = {"max_steps": 5, "micro_batch_size": 4, "max_length": 64, "optimizer": "adamw_torch", **changes}
    return Train(**values)


@pytest.fixture
def data(tiny_checkpoint: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    examples = scan.ScanAroundRight(n_train=64, n_validation=1).load().train
    return encode_pairs(tokenizer, examples, 64), pad_batch(tokenizer)


def model_of(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder)


def trained(folder: Path, data, settings: Train, seed: int = 0, rate: float = 1e-3) -> tuple[list[float], dict]:
    losses = Losses()
    model = model_of(folder)
    fit(model, *data, settings, learning_rate=rate, seed=seed, report=losses)
    return losses.values, model.state_dict()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=8, max_size=60),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 2),
    st.booleans(),
)
def test_the_order_is_repeatable_and_has_the_longest_micro_batch_early(
    lengths: list[int], steps: int, micro: int, accumulation: int, grouped: bool
):
    settings = train(
        max_steps=steps, micro_batch_size=micro, gradient_accumulation_steps=accumulation, group_by_length=grouped
    )
    order = training_order(lengths, settings, seed=3)
    assert len(order) == steps * micro * accumulation
    assert order == training_order(lengths, settings, seed=3)
    # Every example occurs once per pass, except for the batch that a pass leaves over.
    counts = Counter(order)
    passes = len(order) / (len(lengths) // micro * micro)
    assert max(counts.values()) <= int(passes) + 1
    # The longest micro-batch of all is the last one of the second step.
    batches = [order[i : i + micro] for i in range(0, len(order), micro)]
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert max(longest) == longest[min(2, steps) * accumulation - 1]


def test_a_batch_is_never_split_over_gpus_of_one_process(tiny_checkpoint: Path, data, monkeypatch: pytest.MonkeyPatch):
    """The Trainer would use DataParallel: other memory, other throughput, a larger batch."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(UserError, match="sees 2 GPUs, and the Trainer would split each batch"):
        fit(model_of(tiny_checkpoint), *data, train(), learning_rate=1e-3, seed=0)


def test_a_batch_larger_than_the_data_is_an_error(tiny_checkpoint: Path, data):
    with pytest.raises(UserError, match="needs 100 examples for one batch; the data has 64"):
        fit(model_of(tiny_checkpoint), *data, train(micro_batch_size=100), learning_rate=1e-3, seed=0)


def test_same_seed_same_losses_to_the_bit(tiny_checkpoint: Path, data):
    first, weights = trained(tiny_checkpoint, data, train())
    again, weights_again = trained(tiny_checkpoint, data, train())
    assert first == again
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert trained(tiny_checkpoint, data, train(), seed=1)[0] != first


def test_accumulated_micro_batches_equal_one_batch(tiny_checkpoint: Path, data):
    """The mean is over the tokens of the whole batch, for every division into micro-batches: the same loss, and the
    same step up to the order of summation."""
    eight = (data[0][:8], data[1])
    whole = trained(tiny_checkpoint, eight, train(micro_batch_size=8, max_steps=1))
    cut = trained(tiny_checkpoint, eight, train(micro_batch_size=2, gradient_accumulation_steps=4, max_steps=1))
    assert whole[0] == pytest.approx(cut[0], rel=1e-6)
    start = model_of(tiny_checkpoint).state_dict()
    for name, weight in whole[1].items():
        assert not torch.equal(weight, start[name])
        torch.testing.assert_close(weight, cut[1][name], rtol=0, atol=2e-5)  # a step is 1e-3


def test_activation_checkpointing_changes_memory_and_not_the_result(tiny_checkpoint: Path, data):
    results, peaks = [], []
    for checkpointing in (False, True):
        meter = LiveTensorMemory()
        model = model_of(tiny_checkpoint)
        settings = train(activation_checkpointing=checkpointing, micro_batch_size=16, max_steps=4)
        with meter.phase("train"):
            results.append(fit(model, *data, settings, learning_rate=1e-3, seed=0, meter=meter))
        peaks.append(meter.readings["memory/train_max_allocated_bytes"])
        assert meter.readings["memory/train_metered_windows"] == METERED_STEPS
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)
    assert peaks[1] < peaks[0]


def test_each_evaluation_during_training_is_inside_its_own_context(tiny_checkpoint: Path, data):
    """So that neither time nor energy of training include it."""
    seen: list[str] = []

    @contextmanager
    def aside() -> Iterator[None]:
        seen.append("begin")
        yield
        seen.append("end")

    def evaluate() -> tuple[float, float]:
        seen.append("evaluation")
        return 0.5, 0.1

    settings = train(max_steps=5, eval_steps=2)
    fit(model_of(tiny_checkpoint), *data, settings, learning_rate=1e-3, seed=0, evaluate=evaluate, aside=aside)
    assert seen == ["begin", "evaluation", "end"] * 2


def test_tokens_are_counted_without_padding(tiny_checkpoint: Path, data):
    result = fit(model_of(tiny_checkpoint), *data, train(max_steps=6), learning_rate=1e-3, seed=0)
    order = training_order([len(row["input_ids"]) for row in data[0]], train(max_steps=6), 0)
    assert result.tokens == sum(len(data[0][i]["input_ids"]) for i in order)
    assert result.tokens_per_second > 0
    short = fit(model_of(tiny_checkpoint), *data, train(max_steps=4), learning_rate=1e-3, seed=0)
    assert short.tokens_per_second is None  # one timed step gives no throughput


@pytest.mark.parametrize("rate", [1e3, 1e12])
def test_an_absurd_learning_rate_diverges_at_once(tiny_checkpoint: Path, data, rate: float):
    losses = Losses()
    with pytest.raises(Diverged, match="loss"):
        fit(
            model_of(tiny_checkpoint),
            *data,
            train(max_steps=200),
            learning_rate=rate,
            seed=0,
            report=losses,
        )
    assert len(losses.values) < 20


def test_labels_cover_the_response_and_the_end_and_nothing_else(tiny_checkpoint: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    [row] = encode_pairs(tokenizer, [{"prompt": "walk =>", "response": "I_WALK"}], 64)
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["<s>", "walk", "=>", "I_WALK", "</s>"]
    assert row["labels"] == [IGNORED] * 3 + row["input_ids"][3:]
    with pytest.raises(UserError, match="cuts off every response"):
        encode_pairs(tokenizer, [{"prompt": "walk =>", "response": "I_WALK"}], 3)


def test_examples_without_a_label_are_dropped(tiny_checkpoint: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    pairs = [{"prompt": "walk =>", "response": "I_WALK"}, {"prompt": "walk left twice =>", "response": "I_WALK"}]
    assert len(encode_pairs(tokenizer, pairs, 5)) == 1


@pytest.mark.parametrize("variant", ["fft", "lora"])
def test_every_variant_is_evaluated_in_the_same_precision(tiny_checkpoint: Path, data, variant: str):
    model = model_of(tiny_checkpoint)
    model = lora().wrap(model, "CAUSAL_LM", False) if variant == "lora" else model
    fit(model, *data, train(max_steps=1, precision="bf16"), learning_rate=1e-3, seed=0)
    seen = []
    projection = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    projection.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    arguments = {"input_ids": torch.tensor([[1, 5, 3]]), "max_new_tokens": 2, "do_sample": False}
    model.generate(**arguments)
    with precision.autocast("bf16", "cpu"):
        model.generate(**arguments)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2


def test_padding_is_masked_by_attention_where_pad_is_also_the_end(tiny_checkpoint: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [
        {"input_ids": [1, 5, 2], "labels": [IGNORED, 5, 2]},
        {"input_ids": [1, 5, 6, 7, 2], "labels": [1, 5, 6, 7, 2]},
    ]
    batch = pad_batch(tokenizer)(rows)
    assert batch["labels"][0].tolist() == [IGNORED, 5, 2, IGNORED, IGNORED]
    assert batch["attention_mask"].sum(1).tolist() == [3, 5]


def lora(**changes: object) -> LoRA:
    return LoRA(name="lora", learning_rate=1e-3, **{"r": 4, "alpha": 8.0, **changes})


def test_trainable_parameters_equal_the_closed_form(tiny_checkpoint: Path):
    base = model_of(tiny_checkpoint)
    linear = [m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    wanted = sum(4 * (layer.in_features + layer.out_features) for layer in linear)
    total, trainable = count_parameters(lora().wrap(base, "CAUSAL_LM", False))
    assert trainable == wanted
    assert total - trainable == count_parameters(model_of(tiny_checkpoint))[0]
    everything = count_parameters(
        Full(name="fft", learning_rate=1e-3).wrap(model_of(tiny_checkpoint), "CAUSAL_LM", False)
    )
    assert everything[0] == everything[1]


def test_lora_at_its_initialisation_equals_its_base(tiny_checkpoint: Path):
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        before = model_of(tiny_checkpoint)(input_ids=ids).logits
        after = lora().wrap(model_of(tiny_checkpoint), "CAUSAL_LM", False).eval()(input_ids=ids).logits
    assert torch.equal(before, after)


def test_a_wrong_target_lists_the_modules_that_are_there(tiny_checkpoint: Path):
    with pytest.raises(UserError, match=r"'q_prj' matches no linear module .* it has: q_proj, k_proj, v_proj, o_proj"):
        lora(target_modules=["q_proj", "q_prj"]).wrap(model_of(tiny_checkpoint), "CAUSAL_LM", False)


def quantised(folder: Path) -> torch.nn.Module:
    variant = QLoRA(name="qlora", learning_rate=1e-3, r=4, alpha=8.0)
    set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=variant.quantization(torch.float32), device_map={"": "cpu"}
    )
    model = variant.wrap(base, "CAUSAL_LM", False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would leave A without a gradient
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_qlora_is_nf4_with_double_quantisation_and_counts_the_original_weights(tiny_checkpoint: Path):
    model = quantised(tiny_checkpoint)
    states = [p.quant_state for p in model.parameters() if getattr(p, "quant_state", None) is not None]
    assert len(states) == 7
    assert all(state.quant_type == "nf4" and state.nested for state in states)
    plain = count_parameters(model_of(tiny_checkpoint))[0]
    total, trainable = count_parameters(model)
    assert total - trainable == plain


def test_qlora_s_gradients_are_the_same_after_an_evaluation(tiny_checkpoint: Path):
    """bitsandbytes repacks 4-bit weights at an evaluation on some CPUs, and then loses gradients without a warning."""
    model = quantised(tiny_checkpoint)
    ids = torch.arange(4, 20)[None]

    def gradients() -> dict[str, torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    after = gradients()
    assert len(before) == 14
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_the_last_step_made_no_number_is_found(value: float):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    require_finite_weights(model)
    model[0].requires_grad_(False)
    with torch.no_grad():
        model[0].weight[1, 2] = value
    require_finite_weights(model)  # it does not train: the checkpoint's own
    with torch.no_grad():
        model[1].bias[0] = value
    with pytest.raises(Diverged, match=r"the weight 1\.bias is not finite after the last optimizer step"):
        require_finite_weights(model)
