"""Scores as a plain script of transformers computes them. No code of this project: it is the truth to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, r2_score, root_mean_squared_error
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)


def _logits(folder: Path, rows: Sequence[dict[str, str]], max_length: int) -> tuple[Any, torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        texts = [row["text"], row["text_pair"]] if "text_pair" in row else [row["text"]]
        inputs = tokenizer(*texts, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits[0])
    return model.config, torch.stack(found)


def classification(folder: Path, rows: Sequence[dict[str, str]], max_length: int) -> tuple[list[str], dict[str, float]]:
    config, logits = _logits(folder, rows, max_length)
    answers = [config.id2label[index] for index in logits.argmax(-1).tolist()]
    wanted = [row["label"] for row in rows]
    return answers, {
        "accuracy": accuracy_score(wanted, answers),
        "f1_macro": f1_score(wanted, answers, average="macro", zero_division=0),
        "matthews": matthews_corrcoef(wanted, answers),
    }


def regression(
    folder: Path, rows: Sequence[dict[str, str]], max_length: int, training: Sequence[float]
) -> tuple[list[float], dict[str, float]]:
    _, logits = _logits(folder, rows, max_length)
    answers = logits[:, 0].double().numpy() * np.std(training) + np.mean(training)
    wanted = [float(row["label"]) for row in rows]
    return answers.tolist(), {
        "pearson": stats.pearsonr(answers, wanted).statistic,
        "spearman": stats.spearmanr(answers, wanted).statistic,
        "rmse": root_mean_squared_error(wanted, answers),
        "r2": r2_score(wanted, answers),
    }


def generation(
    folder: Path,
    rows: Sequence[dict[str, str]],
    max_new_tokens: int,
    end: str,
    chat: bool = False,
    seq2seq: bool = False,
) -> tuple[list[str], dict[str, float]]:
    """Greedy answers, one by one, and the likelihood of the references with their end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = auto.from_pretrained(folder).eval()
    start = {"decoder_start_token_id": model.config.decoder_start_token_id} if seq2seq else {}
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, **start)
    stop = tokenizer.convert_tokens_to_ids(end)
    answers, total, count = [], 0.0, 0
    for row in rows:
        asked = row["prompt"]
        if chat:
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(asked, return_tensors="pt", add_special_tokens=not chat)["input_ids"]
        answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, eos_token_id=stop
            )[0]
            if seq2seq:
                labels = torch.tensor([tokenizer(text_target=row["response"])["input_ids"]])
                loss, size = model(input_ids=ids, labels=labels).loss, labels.shape[1]
            else:
                out = out[ids.shape[1] :]
                learnt = torch.tensor([[*answer, stop]])
                whole = torch.cat([ids, learnt], 1)
                labels = torch.cat([torch.full_like(ids, -100), learnt], 1)
                loss, size = model(input_ids=whole, labels=labels).loss, learnt.shape[1]
        answers.append(tokenizer.decode(out, skip_special_tokens=True))
        total, count = total + float(loss) * size, count + size
    wanted = [row["response"] for row in rows]
    return answers, {
        "exact_match": float(np.mean([got.split() == want.split() for got, want in zip(answers, wanted, strict=True)])),
        "chrf": sacrebleu.corpus_chrf(answers, [wanted]).score,
        "perplexity": math.exp(total / count),
    }
