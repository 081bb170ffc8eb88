"""Scores of every task equal those of a plain script of transformers, on real architectures made small."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import plain_scripts
import pytest
import torch
import transformers
from conftest import ROOT
from small_tasks import Nothing, evaluate, fit, generation, loaded
from transformers import AutoTokenizer

from sweep.datasets import Example, Splits
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.chrf import ChrF
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.f1 import F1
from sweep.metrics.matthews import Matthews
from sweep.metrics.pearson import Pearson
from sweep.metrics.perplexity import Perplexity
from sweep.metrics.r2 import R2
from sweep.metrics.rmse import Rmse
from sweep.metrics.spearman import Spearman
from sweep.tasks.classification import Classification
from sweep.tasks.regression import Regression
from sweep.tasks.seq2seq import Seq2Seq

SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
SHORT = 14  # tokens: some texts are longer, and cut
WORDS = checkpoints.WORDS.split()


def of(kind: str, model_class: str, tokenizer: Callable[[], Any] = checkpoints.words_tokenizer, **sizes: Any) -> Any:
    """A function that writes a checkpoint of this architecture, of random weights, into a folder."""

    def make(folder: Path) -> Path:
        made = tokenizer()
        ids = {f"{name}_token_id": getattr(made, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        config = getattr(transformers, f"{kind}Config")(vocab_size=len(made), **{**ids, **SMALL, **sizes})
        return checkpoints.save(folder, model_class, config, made)

    return make


def closed_bytes() -> Any:
    return checkpoints.bytes_tokenizer(closed=True, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def plain_bytes() -> Any:
    return checkpoints.bytes_tokenizer(eos_token="</s>", bos_token="<s>", pad_token="<pad>")


ENCODERS = {
    "bert": checkpoints.bert,
    "distilbert": checkpoints.distilbert,
    "roberta": checkpoints.roberta,
    "electra": of("Electra", "ElectraModel", embedding_size=16),
    "albert": of("Albert", "AlbertModel", embedding_size=16),
    "modernbert": of("ModernBert", "ModernBertModel", cls_token_id=2, sep_token_id=3),
    "gpt2": checkpoints.gpt2,
    "qwen2": of("Qwen2", "Qwen2Model", plain_bytes, num_key_value_heads=1),
}
DECODERS = {
    "gpt2": checkpoints.gpt2,
    "llama": checkpoints.llama,
    "mistral": of("Mistral", "MistralForCausalLM", plain_bytes, num_key_value_heads=1, sliding_window=16),
    "gpt_neox": of("GPTNeoX", "GPTNeoXForCausalLM", plain_bytes),
    "opt": of("OPT", "OPTForCausalLM", plain_bytes, ffn_dim=64, word_embed_proj_dim=32),
    "phi": of("Phi", "PhiForCausalLM", plain_bytes),
    "falcon": of("Falcon", "FalconForCausalLM", plain_bytes, alibi=False),
}
D_MODEL = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip
SEQ2SEQ = {
    "t5": checkpoints.t5,
    "bart": of("Bart", "BartForConditionalGeneration", closed_bytes, decoder_start_token_id=1, **D_MODEL),
    "pegasus": of("Pegasus", "PegasusForConditionalGeneration", closed_bytes, decoder_start_token_id=0, **D_MODEL),
}
QUICK = ("bert", "llama", "t5")  # one of each kind; the others are slow together


def cases(made: dict[str, Any]) -> list[Any]:
    return [pytest.param(make, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, make in made.items()]


REVIEWS: list[Example] = [
    {
        "text": " ".join(
            [("bad", "good", "fine")[i % 3], *(WORDS[(i * 7 + k) % len(WORDS)] for k in range(3 + i % 14))]
        ),
        "label": ("neg", "pos", "so-so")[i % 3],
    }
    for i in range(24)
]
PAIRS: list[Example] = [{**review, "text_pair": "the end was fine"} for review in REVIEWS]
ASKED: list[Example] = [{"prompt": f"say {word}:", "response": f" {word}"} for word in WORDS[:12]]


def kept(folder: Path, model: Any, tokenizer: Any) -> Path:
    """What a user would have: `save_pretrained` of model and tokenizer."""
    model.save_pretrained(folder / "out")
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder / "out")
    return folder / "out"


@pytest.mark.parametrize("make", cases(ENCODERS))
def test_a_classification_scores_as_a_plain_script_does(tmp_path: Path, make: Any):
    metrics = {"accuracy": Accuracy(), "f1_macro": F1(average="macro"), "matthews": Matthews()}
    rows = PAIRS if make is checkpoints.bert else REVIEWS
    task = Classification(data=Nothing(), metrics=metrics, score="accuracy").bind(Splits(train=rows, validation=rows))
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    fit(model, task, tokenizer, rows, rate=1e-2, max_steps=20, max_length=SHORT)
    found = evaluate(task, model.eval(), tokenizer, rows, max_length=SHORT)
    answers, scores = plain_scripts.classification(kept(tmp_path, model, tokenizer), rows, SHORT)
    assert found.truncated > 0
    assert [row["prediction"] for row in found.rows] == answers
    assert len(set(answers)) > 1
    assert found.scores == pytest.approx(scores, abs=1e-9)


@pytest.mark.parametrize("make", cases({name: ENCODERS[name] for name in ("bert", "albert", "gpt2")}))
def test_a_regression_scores_as_a_plain_script_does(tmp_path: Path, make: Any):
    rows: list[Example] = [{**row, "label": str(30.0 + 2.5 * len(row["text"].split()))} for row in REVIEWS]
    metrics = {"pearson": Pearson(), "spearman": Spearman(), "rmse": Rmse(), "r2": R2()}
    task = Regression(data=Nothing(), metrics=metrics, score="pearson").bind(Splits(train=rows, validation=rows))
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    fit(model, task, tokenizer, rows, rate=3e-3, max_steps=12, max_length=SHORT)
    found = evaluate(task, model.eval(), tokenizer, rows, max_length=SHORT)
    training = [float(row["label"]) for row in rows]
    answers, scores = plain_scripts.regression(kept(tmp_path, model, tokenizer), rows, SHORT, training)
    assert [float(row["prediction"]) for row in found.rows] == pytest.approx(answers, rel=1e-5)
    assert found.scores == pytest.approx(scores, rel=1e-3)


def generates_like_a_script(folder: Path, end: str = "</s>", chat: bool = False, **options: Any) -> None:
    metrics = {"exact_match": ExactMatch(), "chrf": ChrF(), "perplexity": Perplexity()}
    task = generation(**options, metrics=metrics, apply_chat_template=chat, max_new_tokens=8)
    model, tokenizer = loaded(task, folder)
    fit(model, task, tokenizer, ASKED, rate=5e-3, max_steps=30, max_length=64)
    found = evaluate(task, model.eval(), tokenizer, ASKED, max_length=64)
    seq2seq = "kind" in options
    answers, scores = plain_scripts.generation(kept(folder, model, tokenizer), ASKED, 8, end, chat, seq2seq)
    assert [row["prediction"] for row in found.rows] == answers
    assert any(len(answer) < 8 for answer in answers)  # some end by themselves
    assert found.scores == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize("make", cases(DECODERS))
def test_a_generation_scores_as_a_plain_script_does(tmp_path: Path, make: Any):
    make(tmp_path)
    generates_like_a_script(tmp_path)


def test_a_chat_scores_as_a_plain_script_does(tmp_path: Path):
    checkpoints.llama(tmp_path, vocab_size=512)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    generates_like_a_script(tmp_path, end="<|im_end|>", chat=True)


@pytest.mark.parametrize("make", cases(SEQ2SEQ))
def test_a_seq2seq_scores_as_a_plain_script_does(tmp_path: Path, make: Any):
    make(tmp_path)
    generates_like_a_script(tmp_path, kind=Seq2Seq)


def test_the_plain_scripts_import_nothing_of_ours():
    tree = ast.parse((ROOT / "tests" / "plain_scripts.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in imported if name.startswith(("sweep", "analysis", "hydra_plugins"))]
    assert len({*ENCODERS, *DECODERS, *SEQ2SEQ}) >= 12
    assert torch.get_default_dtype() == torch.float32
