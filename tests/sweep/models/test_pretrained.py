"""Checkpoints: one that is damaged, incomplete or of another kind is refused early with its reason; others load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import checkpoints
import huggingface_hub
import pytest
import torch
from conftest import compose
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
)

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.core.reporter import silent
from sweep.models.checkpoint_files import digest, safetensors_fault
from sweep.models.compatibility import KERNEL_FLAGS, kernels, model_class
from sweep.models.pretrained import Pretrained, _why
from sweep.runtime import precision
from sweep.training_run import prepare


def prepared(folder: Path, auto_class: type = AutoModelForSequenceClassification) -> None:
    model = Pretrained(path=str(folder))
    assert not list(model.faults())
    model.prepare(silent)
    model.check(auto_class)


@pytest.mark.parametrize("make", [checkpoints.distilbert, checkpoints.bert, checkpoints.roberta, checkpoints.gpt2])
def test_a_whole_checkpoint_passes(tmp_path: Path, make: Any):
    make(tmp_path)
    prepared(tmp_path)


def damage(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "half a header":
        weights.write_bytes(weights.read_bytes()[:60])
    elif how == "not safetensors":
        weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "pickle only":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "an adapter":
        weights.unlink()
        (folder / "adapter_config.json").write_text("{}")
    elif how == "a lost part":
        weights.unlink()
        names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    elif how == "broken index":
        weights.unlink()
        (folder / "model.safetensors.index.json").write_text("[]")
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif how == "broken tokenizer":
        (folder / "tokenizer.json").write_text('{"version": "1.0"')
    elif how == "unknown type":
        config.write_text(json.dumps({"model_type": "nonesuch"}))
    elif how == "wrong shapes":
        config.write_text(config.read_text().replace('"dim": 32', '"dim": 64'))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"damaged model.safetensors: it has \d+ bytes, and its header describes \d+; copy it again"),
        ("half a header", "damaged model.safetensors: its header is longer than the file"),
        ("not safetensors", "damaged model.safetensors"),
        ("empty weights", "a safetensors file has more than 0 bytes"),
        ("no weights", "has no weights: model.safetensors"),
        (
            "pickle only",
            r"pickle only \(pytorch_model.bin\).*: transformers.DistilBertForMaskedLM.from_pretrained\(",
        ),
        ("an adapter", "holds an adapter, not a base model"),
        ("a lost part", "lacks model-00001-of-00002.safetensors, model-00002-of-00002.safetensors"),
        ("broken index", "damaged model.safetensors.index.json"),
        ("no tokenizer", "has no tokenizer"),
        ("broken tokenizer", "the tokenizer of .* cannot be loaded"),
        ("unknown type", "config.json cannot be used"),
    ],
)
def test_a_damaged_checkpoint_is_refused_before_any_run(tmp_path: Path, how: str, message: str):
    checkpoints.distilbert(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("config.json", True), ("generation_config.json", True), ("tokenizer.json", True),
        ("tokenizer_config.json", True), ("chat_template.jinja", True), ("additional_chat_templates/rag.jinja", True),
        ("modeling_own.py", True),
        ("model.safetensors", True), ("README.md", False), ("optimizer.pt", False), ("consolidated.safetensors", False),
        ("original/model.safetensors", False),
    ],
)  # fmt: skip
def test_another_file_that_a_run_reads_is_another_base(tmp_path: Path, name: str, counts: bool):
    checkpoints.llama(tmp_path)
    before = Pretrained(path=str(tmp_path)).prepare(silent)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((file.read_bytes() if file.exists() else b"") + b" ")
    assert (digest(tmp_path) != before["model_revision"].removeprefix("sha256:")) == counts


def repository(folder: Path, sharded: bool) -> list[str]:
    """Files of a repository: weights for several programs."""
    checkpoints.llama(folder)
    if sharded:
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="50kB")
        (folder / "model.safetensors").unlink(missing_ok=True)
    for name in (
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "original/model.safetensors",
        "a.bin",
        "README.md",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("sharded", [False, True])
def test_of_the_hub_only_what_is_loaded_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool):
    there = repository(tmp_path / "hub", sharded)

    def download(path: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        """Into the cache, as `snapshot_download` with its own choice of files."""
        to = tmp_path / "cache" / "0123abc"
        for name in filter_repo_objects(there, allow_patterns=allow_patterns):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((tmp_path / "hub" / name).read_bytes())
        return str(to)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Pretrained(path="owner/name").prepare(silent) == {"model_revision": "0123abc"}
    fetched = {str(file.relative_to(tmp_path / "cache" / "0123abc")) for file in (tmp_path / "cache").rglob("*.*")}
    weights = {name for name in fetched if name.endswith(".safetensors")}
    assert weights == {name for name in there if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", name)}
    assert len(weights) > 1 if sharded else weights == {"model.safetensors"}
    assert "tokenizer.json" in fetched
    assert "a.bin" not in fetched


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "without a config.json"),
        ("{", "config.json that cannot be read"),
        ("[]", "config.json that is list"),
        ("{}", "without a model_type"),
    ],
)
def test_a_broken_config_is_a_fault(tmp_path: Path, content: str | None, message: str):
    checkpoints.distilbert(tmp_path)
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        parse(compose("model=pretrained", f"model.path={tmp_path}"))
    assert message in {fault.key: fault.message for fault in caught.value.faults}["model.path"]


def test_an_empty_path_and_a_file_are_faults(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(b"x")
    assert "is empty" in dict(Pretrained(path=" ").faults())["path"]
    assert "is a file" in dict(Pretrained(path=str(tmp_path / "model.bin")).faults())["path"]
    assert "neither an existing folder" in dict(Pretrained(path="/nowhere/at/all").faults())["path"]
    assert not list(Pretrained(path="owner/name").faults())


def test_weights_of_another_shape_or_architecture_are_not_trained_from_scratch(tmp_path: Path):
    """transformers fills what is missing with random numbers, and says so in a log that nobody reads."""
    checkpoints.distilbert(tmp_path)
    damage(tmp_path, "wrong shapes")
    with pytest.raises(UserError, match=r"no weights for distilbert\.embeddings"):
        Pretrained(path=str(tmp_path)).load(AutoModelForSequenceClassification, None, "cpu")


def test_a_head_for_other_labels_is_made_anew(tmp_path: Path):
    checkpoints.distilbert(tmp_path, "DistilBertForSequenceClassification", num_labels=2)
    arguments = {"num_labels": 5, "id2label": {i: str(i) for i in range(5)}, "label2id": {str(i): i for i in range(5)}}
    model = Pretrained(path=str(tmp_path)).load(AutoModelForSequenceClassification, None, "cpu", arguments)
    assert model.classifier.out_features == 5
    assert torch.isfinite(model.classifier.weight).all()


@pytest.mark.parametrize("variant", ["lora_r8", "qlora_r8", "bitfit"])
def test_a_pooler_that_the_checkpoint_came_without_trains(tmp_path: Path, variant: str):
    """Masked language models are kept without: it would stay at random under an adapter, and bitsandbytes cannot
    quantise what is not there."""
    from transformers import BertConfig

    tokenizer = checkpoints.words_tokenizer(types=True)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    checkpoints.save(tmp_path, "BertForMaskedLM", BertConfig(vocab_size=len(tokenizer), **sizes), tokenizer)
    wrapped = parse(compose(f"variant={variant}")).variant
    quantization = wrapped.quantization(torch.float32, "SEQ_CLS")
    base = Pretrained(path=str(tmp_path)).load(AutoModelForSequenceClassification, quantization, "cpu")
    trained = [n for n, p in wrapped.wrap(base, "SEQ_CLS", False).named_parameters() if p.requires_grad]
    assert [n for n in trained if "pooler" in n and n.endswith("weight") and "lora" not in n]
    assert not [n for n in trained if "pooler" in n and "lora" in n]
    assert [n for n in trained if "classifier" in n]


@pytest.mark.parametrize(("compute", "held"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_fp16_checkpoint_trains(tmp_path: Path, compute: str, held: torch.dtype):
    checkpoints.distilbert(tmp_path)
    model = Pretrained(path=str(tmp_path), dtype="fp16").load(AutoModelForSequenceClassification, None, "cpu")
    assert model.dtype == torch.float16
    model = parse(compose("variant=lora_r8")).variant.wrap(model, "SEQ_CLS", False)
    precision.cast_weights(model, compute)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {held}
    ids = torch.tensor([[2, 5, 3]])
    with precision.autocast(compute, "cpu"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([1])).loss.backward()


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(UserError, match=r"train.precision = fp16 needs a GPU"):
        prepare(compose("train.precision=fp16"), silent)


def test_a_model_of_another_kind_is_refused_with_the_task_that_fits(tmp_path: Path):
    checkpoints.t5(tmp_path / "t5")
    with pytest.raises(UserError, match=r"of type t5, .* no AutoModelForCausalLM; it fits .*task: seq2seq"):
        prepared(tmp_path / "t5", AutoModelForCausalLM)
    prepared(tmp_path / "t5", AutoModelForSeq2SeqLM)


def test_a_missing_attention_kernel_is_refused(tmp_path: Path):
    from transformers import DebertaV2Config

    tokenizer = checkpoints.words_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DebertaV2Config(vocab_size=len(tokenizer), **sizes)
    checkpoints.save(tmp_path, "DebertaV2Model", config, tokenizer)
    with pytest.raises(UserError, match=r"has no such kernel in transformers; use model\.attention=eager"):
        Pretrained(path=str(tmp_path)).check(AutoModelForSequenceClassification)
    Pretrained(path=str(tmp_path), attention="eager").check(AutoModelForSequenceClassification)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "distilbert", "max_position_embeddings": 512}, 512),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "mystery"}, None),
    ],
)
def test_positions(tmp_path: Path, config: dict, expected: int | None):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Pretrained(path=str(tmp_path)).max_positions == expected


def test_roberta_runs_at_its_longest_and_not_beyond(tmp_path: Path):
    """Its table has two rows more than a text may have tokens."""
    checkpoints.roberta(tmp_path, positions=34)
    assert Pretrained(path=str(tmp_path)).max_positions == 32
    model = Pretrained(path=str(tmp_path)).load(AutoModelForSequenceClassification, None, "cpu").eval()
    model(input_ids=torch.full((1, 32), 5), attention_mask=torch.ones(1, 32, dtype=torch.long))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 33), 5), attention_mask=torch.ones(1, 33, dtype=torch.long))


def test_a_tokenizer_without_a_padding_token_takes_the_end_token(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    tokenizer = Pretrained(path=str(tmp_path)).load_tokenizer()
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


def test_a_safetensors_file_that_is_whole_has_no_fault(tmp_path: Path):
    checkpoints.distilbert(tmp_path)
    assert safetensors_fault(tmp_path / "model.safetensors") is None


def hub_error(kind: type) -> Exception:
    import httpx

    return kind("401 Client Error", response=httpx.Response(401, request=httpx.Request("GET", "https://hub")))


def test_a_refusal_of_the_hub_says_what_to_do():
    assert "Accept its terms" in _why(hub_error(errors.GatedRepoError))
    assert "has no such model" in _why(hub_error(errors.RepositoryNotFoundError))
    assert "no such revision" in _why(hub_error(errors.RevisionNotFoundError))
    assert "offline, give the folder" in _why(OSError("no route to host"))
    with pytest.raises(UserError, match=r"model\.path = owner/missing could not be loaded"):
        Pretrained(path="owner/missing").prepare(silent)


def test_the_private_flags_of_attention_kernels_are_still_there():
    """transformers has no public way to ask which kernels a model supports without building it."""
    for name, flag in KERNEL_FLAGS.items():
        assert hasattr(PreTrainedModel, flag), f"transformers renamed {flag}: find the new name of the flag for {name}"
    assert kernels(LlamaForCausalLM) == ["sdpa", "flash_attention_2"]
    assert kernels(BloomForCausalLM) == []


@pytest.mark.parametrize(
    "auto_class", [AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification]
)
def test_the_model_class_is_the_one_that_transformers_builds(auto_class: Any):
    sizes = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    decoder = LlamaConfig(num_attention_heads=1, **sizes)
    encoder_decoder = T5Config(vocab_size=8, d_model=4, d_kv=4, d_ff=4, num_layers=1, num_heads=1)
    config = decoder if auto_class is AutoModelForCausalLM else encoder_decoder
    assert model_class(auto_class, config) is type(auto_class.from_config(config))
    assert model_class(AutoModelForSeq2SeqLM, LlamaConfig()) is None
