"""The contract of every variant on disk: it trains, saves, loads again, and then gives the same logits."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import checkpoints
import pytest
import torch
from conftest import ROOT, compose
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.models.scan_llama import build_tokenizer
from sweep.training.parameter_counts import count_parameters
from sweep.variants import Variant

VARIANTS = sorted(path.stem for path in (ROOT / "conf" / "variant").glob("*.yaml"))
IDS = torch.arange(4, 28).reshape(2, 12)
MASK = torch.ones_like(IDS)
MASK[1, 8:] = 0


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with biases, so that BitFit has something to train."""
    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        attention_bias=True,
        mlp_bias=True,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT: its classification head, of two parts, is new at every loading."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "dim": 64, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}
    config = DistilBertConfig(**sizes, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)
    DistilBertForSequenceClassification(config).distilbert.save_pretrained(folder)
    return folder


@cache
def variant_of(name: str, *overrides: str) -> Variant:
    return parse(compose(f"variant={name}", *overrides)).variant


def load(folder: Path, variant: Variant, task_type: str, seed: int = 0, whole: bool = False) -> torch.nn.Module:
    auto = AutoModelForCausalLM if task_type == "CAUSAL_LM" else AutoModelForSequenceClassification
    set_seed(seed)
    quantization = None if whole else variant.quantization(torch.float32, task_type)
    model = auto.from_pretrained(folder, device_map={"": "cpu"}, quantization_config=quantization)
    model.config.use_cache = False
    return model


def some_steps(model: torch.nn.Module, labels: torch.Tensor, rate: float = 1e-2) -> list[torch.Tensor]:
    """Six optimizer steps; the losses before each."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=rate)
    losses = []
    model.train()
    for _ in range(6):
        loss = model(input_ids=IDS, attention_mask=MASK, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=MASK).logits


def check(variant: Variant, folder: Path, task_type: str, labels: torch.Tensor, scratch: Path) -> None:
    model = variant.wrap(load(folder, variant, task_type), task_type, False)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    total, trainable = count_parameters(model)
    assert 0 < trainable <= total
    losses = some_steps(model, labels)
    assert min(losses[1:]) < losses[0]
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name
    variant.save(model, scratch)
    again = variant.restore(load(folder, variant, task_type, seed=7), scratch)
    assert torch.equal(logits(again), logits(model))
    if getattr(variant, "mergeable", False):
        adapted = variant.restore(load(folder, variant, task_type, seed=7, whole=True), scratch)
        before = logits(adapted)
        merged = variant.merge(adapted)
        plain = load(folder, variant, task_type, seed=7, whole=True)
        assert merged.state_dict().keys() == plain.state_dict().keys()  # so that saved, it is loaded whole
        torch.testing.assert_close(logits(merged), before, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(before, logits(plain), atol=1e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_trains_saves_loads_and_is_the_same(name: str, decoder: Path, tmp_path: Path):
    check(variant_of(name), decoder, "CAUSAL_LM", torch.where(MASK == 1, IDS, -100), tmp_path / "kept")


FAMILIES = ["fft", "lora_r8", "dora_r16", "qlora_r16", "lora8bit_r16", "ia3", "ln_tuning", "prompt_tuning", "bitfit"]


@pytest.mark.parametrize("name", [*FAMILIES, "last_layer"])
def test_the_same_for_a_classifier_whose_head_is_new(name: str, encoder: Path, tmp_path: Path):
    variant = variant_of(name)
    check(variant, encoder, "SEQ_CLS", torch.tensor([1, 1]), tmp_path / "kept")


@pytest.mark.parametrize("name", ["lora_r8", "ia3", "ln_tuning"])
def test_the_same_for_a_head_of_several_layers(name: str, tmp_path: Path):
    """RoBERTa's is one module of two layers."""
    check(variant_of(name), checkpoints.roberta(tmp_path / "base"), "SEQ_CLS", torch.tensor([1, 1]), tmp_path / "kept")


@pytest.fixture(scope="module")
def transposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2, which keeps its weights as (in, out)."""
    folder = tmp_path_factory.mktemp("transposed")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=32, n_embd=64, n_layer=1, n_head=2, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["dora_r16", "qlora_r8", "ia3", "prefix_tuning"])
def test_the_same_for_transposed_weights(name: str, transposed: Path, tmp_path: Path):
    check(variant_of(name), transposed, "CAUSAL_LM", torch.where(MASK == 1, IDS, -100), tmp_path / "kept")


def wrapped(name: str, folder: Path, *overrides: str, task_type: str = "CAUSAL_LM") -> torch.nn.Module:
    variant = variant_of(name, *overrides)
    return variant.wrap(load(folder, variant, task_type), task_type, False)


def trainable(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


LAYERS, HIDDEN, INNER, KEYS = 2, 64, 64, 32  # the decoder above; one of two heads has keys and values of its own


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lora_qv", LAYERS * 8 * ((HIDDEN + HIDDEN) + (HIDDEN + KEYS))),
        (
            "dora_r16",
            LAYERS * (16 * (2 * 2 * HIDDEN + 2 * (HIDDEN + KEYS) + 3 * 2 * HIDDEN) + 6 * HIDDEN + 2 * KEYS - HIDDEN),
        ),
        ("ia3", LAYERS * (KEYS + KEYS + INNER)),
        ("ln_tuning", (2 * LAYERS + 1) * HIDDEN),
        ("prompt_tuning", 20 * HIDDEN),
        ("prefix_tuning", 20 * LAYERS * 2 * KEYS),
        ("bitfit", LAYERS * (2 * HIDDEN + 2 * KEYS + 2 * INNER + HIDDEN)),
        (
            "last_layer",
            4 * HIDDEN + 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 2 * KEYS + 3 * HIDDEN * INNER + 2 * INNER + HIDDEN,
        ),
    ],
)
def test_trainable_parameters_equal_the_closed_form(name: str, count: int, decoder: Path):
    assert sum(trainable(wrapped(name, decoder)).values()) == count


def test_auto_is_peft_s_choice_for_a_known_architecture_and_all_linear_for_others(decoder: Path, encoder: Path):
    def adapted(model: torch.nn.Module) -> set[str]:
        return {name.split(".lora_A")[0].rpartition(".")[2] for name in trainable(model) if "lora_A" in name}

    assert adapted(wrapped("lora_auto", decoder)) == {"q_proj", "v_proj"}
    known = load(decoder, variant_of("lora_auto"), "CAUSAL_LM")
    known.config.model_type = "unknown"
    model = variant_of("lora_auto").wrap(known, "CAUSAL_LM", False)
    assert adapted(model) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("name", ["lora_r8", "qlora_r16", "lora8bit_r16", "ln_tuning", "bitfit"])
def test_the_whole_of_a_new_head_trains_in_full_precision(name: str, encoder: Path):
    """PEFT alone would leave `pre_classifier` frozen at its random start, and bitsandbytes would quantise both."""
    model = wrapped(name, encoder, task_type="SEQ_CLS")
    counts = trainable(model)
    for part, size in {"pre_classifier": HIDDEN * HIDDEN + HIDDEN, "classifier": 2 * HIDDEN + 2}.items():
        found = [n for name, n in counts.items() if f".{part}." in f".{name}" and "lora" not in name]
        assert sum(found) == size, part
    weights = [p for n, p in model.named_parameters() if p.requires_grad and "classifier" in n]
    assert {p.dtype for p in weights} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "lora_r8",
            ["variant.target_modules=[q_prj]"],
            "'q_prj' matches no linear module of Llama.* it has: q_proj, k",
        ),
        ("ia3", ["variant.target_modules=[k_prj]"], "'k_prj' matches no linear module of Llama.* it has: q_proj, k"),
        ("ln_tuning", ["variant.target_modules=[ln]"], "'ln' matches no normalisation layer of .* it has: input_layer"),
        ("bitfit", ["variant.parameters=['*.beta']"], r"'\*.beta' matches no parameter of .*: embed_tokens.weight"),
        ("last_layer", ["variant.last_layers=3"], "last_layers = 3 is more than the 2 blocks"),
    ],
)
def test_wrong_names_list_what_exists(name: str, overrides: list[str], message: str, decoder: Path):
    with pytest.raises(UserError, match=message):
        wrapped(name, decoder, *overrides)


def test_a_family_that_does_not_fit_is_refused(decoder: Path, encoder: Path):
    prefix = variant_of("prefix_tuning")
    model = load(decoder, prefix, "CAUSAL_LM")
    with pytest.raises(UserError, match=r"prefix_tuning.*train\.activation_checkpointing=false"):
        prefix.wrap(model, "CAUSAL_LM", True)
    model = load(encoder, prefix, "SEQ_CLS")
    with pytest.raises(UserError, match=r"accepts a cache .* DistilBertForSequenceClassification does not"):
        prefix.wrap(model, "SEQ_CLS", False)
    prompt = variant_of("prompt_tuning")
    with pytest.raises(
        UserError, match=r"answers would depend on the padding\. Use another .* prefix_tuning or lora_r8"
    ):
        prompt.wrap(load(decoder, prompt, "SEQ_CLS"), "SEQ_CLS", False)


def test_virtual_tokens_take_positions(tiny_checkpoint: Path):
    model = ["model=pretrained", f"model.path={tiny_checkpoint}", "train.max_length=110"]
    with pytest.raises(ConfigError, match="with the variant's 20 virtual tokens exceeds the model's 128 positions"):
        parse(compose("variant=prompt_tuning", *model))
    parse(compose("variant=prompt_tuning", *model, "train.max_length=108"))


@pytest.mark.parametrize("name", ["lora_r8", "prompt_tuning", "prefix_tuning"])
def test_what_is_generated_does_not_depend_on_the_batch(name: str, decoder: Path):
    """Left padding between virtual tokens and prompt changed answers, without a word but a warning."""
    model = wrapped(name, decoder).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    task = parse(compose("task.max_new_tokens=6")).task
    commands = ["walk =>", "walk left twice =>", "look =>", "walk left twice and look around left thrice =>"]
    examples = [{"prompt": command, "response": ""} for command in commands]

    def answers(batch_size: int) -> list[str]:
        rows = task.evaluate(model, build_tokenizer(), examples, batch_size, lambda batch: nullcontext()).rows
        return [row["prediction"] for row in rows]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        together, alone = answers(4), answers(1)
    assert together == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("t5", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}),
        ("bart", {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 64,
                  "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
    ],
)  # fmt: skip
def test_the_last_layer_of_an_encoder_decoder_is_its_decoder_s(kind: str, sizes: dict[str, int]):
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, vocab_size=32, **sizes))
    variant_of("last_layer").wrap(model, "SEQ_2_SEQ_LM", False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    last = model.get_decoder().get_submodule({"t5": "block", "bart": "layers"}[kind])[1]
    assert {id(p) for n, p in model.named_parameters() if n in trained} == {id(p) for p in last.parameters()}


def test_a_module_named_as_a_norm_that_is_none_is_left_out():
    """ModernBERT's first attention has no norm before it: its place holds an identity."""
    config = AutoConfig.for_model(
        "modernbert",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=64,
        pad_token_id=0,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    norms = sum(p.numel() for m in model.model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters())
    wrapped = variant_of("ln_tuning").wrap(model, "SEQ_CLS", False)
    trained = sum(
        p.numel() for n, p in wrapped.named_parameters() if p.requires_grad and "modules_to_save.default.norm" not in n
    )
    head = sum(p.numel() for n, p in model.named_parameters() if n.startswith(("head", "classifier")))
    assert norms <= trained <= norms + head


def test_prefixes_have_the_one_head_of_multi_query_attention():
    """Keys and values of 20 tokens in 2 layers, 8 wide: not 32 wide as the hidden states."""
    config = AutoConfig.for_model("falcon", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=32)
    assert config.multi_query
    model = variant_of("prefix_tuning").wrap(AutoModelForCausalLM.from_config(config), "CAUSAL_LM", False)
    assert count_parameters(model)[1] == 2 * 2 * 20 * 8
    assert logits(model).shape == (2, 12, 32)


def test_a_model_without_attention_takes_no_prefix_and_takes_prompts():
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=1, state_size=4, vocab_size=32)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match="needs a model that accepts a cache of keys and values"):
        variant_of("prefix_tuning").wrap(model, "CAUSAL_LM", False)
    assert count_parameters(variant_of("prompt_tuning").wrap(model, "CAUSAL_LM", False))[1] == 20 * 32


@pytest.mark.parametrize("preset", ["lora", "qlora", "lora_r8", "lora_r64", "rslora_r64"])
def test_the_scale_of_an_adapter_does_not_depend_on_its_rank(preset: str):
    """alpha/r = 2 for every rank; with rsLoRA alpha/√r = 2."""
    for r in (4, 16):
        variant = variant_of(preset, f"variant.r={r}")
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                             num_attention_heads=2))  # fmt: skip
        config = variant.peft_config(model, "CAUSAL_LM")
        assert config.lora_alpha / (r**0.5 if config.use_rslora else r) == 2


def test_a_fixed_alpha_is_a_caution_only_where_ranks_are_compared():
    fixed = variant_of("lora", "variant.alpha=16")
    [caution] = fixed.cautions({"r"})
    assert "variant.alpha = 16 is the same for every variant.r" in caution
    assert not list(fixed.cautions({"learning_rate"}))
    assert not list(fixed.cautions({"r", "alpha"}))
    assert not list(variant_of("lora").cautions({"r"}))
