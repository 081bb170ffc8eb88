"""Where an answer ends, and what decides how it is generated: the same in training and in evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from small_tasks import PAIRS, evaluate, fit, generation, loaded
from transformers import AutoTokenizer, GenerationConfig

from sweep.core.errors import UserError
from sweep.datasets import Example
from sweep.metrics.exact_match import ExactMatch
from sweep.tasks import IGNORED
from sweep.tasks.prompt_format import Format
from sweep.tasks.seq2seq import Seq2Seq

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}[end]{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
NO_END = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
THOUGHTFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED: list[Example] = [{"prompt": "say fish", "response": "fish"}, {"prompt": "say dog", "response": "dog"}]


def chat_checkpoint(folder: Path, template: str = CHATML) -> Path:
    """A base model whose generation_config names the tokenizer's end alone, as those of Qwen."""
    checkpoints.llama(folder, hidden_size=96, vocab_size=512)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [CHATML, OWN_END, NO_END, THOUGHTFUL], ids=["chatml", "own", "none", "thoughtful"])
def test_an_answer_that_was_learnt_ends_where_the_template_ends_it(tmp_path: Path, template: str):
    """The answers are right and went on to the last token before: an exact match of 0."""
    task = generation(apply_chat_template=True, metrics={"exact_match": ExactMatch()}, max_new_tokens=16)
    model, tokenizer = loaded(task, chat_checkpoint(tmp_path, template))
    fit(model, task, tokenizer, ASKED * 4, rate=1e-2, max_steps=40)
    found = evaluate(task, model.eval(), tokenizer, ASKED)
    assert [row["prediction"].strip() for row in found.rows] == ["fish", "dog"]
    assert found.scores["exact_match"] == 1.0


def test_what_is_learnt_ends_with_the_template_s_end(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(chat_checkpoint(tmp_path))
    [dialogue] = Format(apply_chat_template=True).dialogues(tokenizer, ASKED[:1])
    assert tokenizer.decode(dialogue.ids).endswith("<|im_start|>assistant\nfish<|im_end|>")
    assert tokenizer.decode([label for label in dialogue.labels if label != IGNORED]) == "fish<|im_end|>"
    [own] = Format(apply_chat_template=True, template=OWN_END).dialogues(tokenizer, ASKED[:1])
    assert tokenizer.decode(own.ids[own.answer :]) == "fish[end]</s>"
    assert own.closing == "[end]"
    [given] = Format(apply_chat_template=True, template=THOUGHTFUL).dialogues(tokenizer, ASKED[:1])
    assert tokenizer.decode(given.ids[: given.answer]).endswith("assistant\n<think>\n\n</think>\n\n")


def test_an_encoder_and_decoder_whose_tokenizer_closes_no_text_learns_an_end(tmp_path: Path):
    checkpoints.t5(tmp_path)
    tokenizer = checkpoints.bytes_tokenizer(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    [row] = generation(Seq2Seq).encode(tokenizer, ASKED[:1], 64)
    assert tokenizer.decode(row["labels"]) == "fish</s>"


# Settings of the checkpoint


SETTINGS: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "min_length": 30,
    "min_new_tokens": 5,
    "num_beams": 3,
    "length_penalty": 2.0,
    "early_stopping": True,
    "suppress_tokens": [10, 11],
    "bad_words_ids": [[20], [21]],
    "forced_eos_token_id": 1,
    "exponential_decay_length_penalty": [1, 2.0],
    "do_sample": True,
    "temperature": 3.0,
    "top_k": 5,
}


@pytest.mark.parametrize(("make", "kind"), [(checkpoints.llama, {}), (checkpoints.t5, {"kind": Seq2Seq})])
def test_generation_is_greedy_whatever_generation_config_says(tmp_path: Path, make: Any, kind: Any):
    """transformers' own greedy search, of a config with nothing but the end tokens, is the truth."""
    make(tmp_path)
    task = generation(**kind)
    model, tokenizer = loaded(task, tmp_path)
    file = tmp_path / "generation_config.json"
    plain = json.loads(file.read_text())
    ends = [tokenizer.eos_token_id, 40, 41]
    file.write_text(json.dumps({**plain, **SETTINGS, "eos_token_id": ends}))
    model, tokenizer = loaded(task, tmp_path)
    assert model.generation_config.repetition_penalty == 1.5
    before = model.generation_config.to_dict()
    found = [row["prediction"] for row in evaluate(task, model, tokenizer, PAIRS).rows]
    assert model.generation_config.to_dict() == before
    model.generation_config = GenerationConfig(
        **{key: plain.get(key) for key in ("bos_token_id", "decoder_start_token_id")}
    )
    for example, got in zip(PAIRS, found, strict=True):
        ids = torch.tensor(tokenizer([example["prompt"]])["input_ids"])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, eos_token_id=ends)
        answer = out[0] if kind else out[0, ids.shape[1] :]
        assert got == tokenizer.decode(answer, skip_special_tokens=True)


# Special tokens in the data


def test_special_tokens_in_the_data_are_neither_doubled_nor_compared(tmp_path: Path):
    """Files that were made for another trainer close their responses, and open their prompts, themselves."""
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    closed: list[Example] = [{"prompt": "say fish", "response": "fish</s>\n"}]
    for options in ({}, {"apply_chat_template": True}):
        bare = generation(**options).encode(tokenizer, [{"prompt": "say fish", "response": "fish"}], 64)
        assert generation(**options).encode(tokenizer, closed, 64) == bare
    [dialogue] = Format().dialogues(tokenizer, closed)
    assert dialogue.reference == "fish"
    [dialogue] = Format().dialogues(tokenizer, [{"prompt": "x", "response": "a<s>b</s>"}])
    assert (dialogue.reference, tokenizer.decode(dialogue.ids[1:])) == ("ab", "a<s>b</s>")


def test_an_opening_token_in_the_data_is_not_doubled(tmp_path: Path):
    from tokenizers import processors

    tokenizer = checkpoints.bytes_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    [rendered] = Format().dialogues(tokenizer, [{"prompt": "<s>[INST] hi [/INST]", "response": " yo </s>"}])
    assert tokenizer.decode(rendered.ids) == "<s>[INST] hi [/INST] yo </s>"
    tokenizer = checkpoints.bytes_tokenizer(bos_token="<s>", eos_token="</s>")  # adds none: the data's own stays
    [rendered] = Format().dialogues(tokenizer, [{"prompt": "<s>hi", "response": " yo"}])
    assert tokenizer.decode(rendered.ids) == "<s>hi yo</s>"


def test_texts_and_seq2seq_pairs_double_no_special_token(tmp_path: Path):
    from small_tasks import classification

    words = checkpoints.words_tokenizer(types=True)
    pair: Example = {"text": "[CLS] good film [SEP]", "text_pair": "bad end [SEP]", "label": "pos"}
    clean: Example = {"text": "good film", "text_pair": "bad end", "label": "pos"}
    assert classification().encode(words, [pair], 64) == classification().encode(words, [clean], 64)
    t5 = checkpoints.bytes_tokenizer(closed=True, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    marked = generation(Seq2Seq).encode(t5, [{"prompt": "a</s>", "response": "b </s>"}], 64)
    assert [t5.decode(row) for row in marked[0].values()] == ["a</s>", "b </s>"]


# Dates


def test_a_template_with_the_date_of_the_day_writes_a_fixed_one(tmp_path: Path):
    turns = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    dated = "{{ strftime_now('%d %b %Y') if strftime_now is defined }}|" + turns
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    task = generation(apply_chat_template=True, chat_template=dated, template_date="2025-03-01")
    [row] = task.encode(tokenizer, ASKED[:1], 64)
    assert tokenizer.decode(row["input_ids"]).startswith("01 Mar 2025|")
    assert "2024" in generation().template_date != str(datetime.now().date())
    with pytest.raises(UserError, match="writes the date of the day"):
        replace(task, chat_template="{% set f = '%d' %}{{ strftime_now(f) }}").encode(tokenizer, ASKED[:1], 64)
    assert "is not a date" in dict(generation(template_date="today").faults())["template_date"]
