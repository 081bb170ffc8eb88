"""A plain fine-tuning script, as tutorials have it, against this project's training, and against a bare PyTorch loop.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.note_scripts

The plain script: DistilBERT for sentiment, LoRA r=16 on q/k/v/out, 16 × 2 examples a step, everything padded to 256
tokens, the Trainer as it is. The same model (small, random weights, which need a rate of 2e-3), examples, steps, seeds
and precision on every side, in turns in one process. Seconds are of one thread's processor time from the first batch
on, so that neither other programs on the machine nor setting up count.

Padding is nearly all of the difference, so that it depends on the texts: lengths as in IMDB (a median of 174 words, 226
tokens), paragraphs (130 tokens), and single sentences of reviews (19). `real_tokens_share` is what is real of 256
tokens a text. Computing takes time in proportion to tokens, attention to their square: no way of padding can win much
more than the inverse of that share. `ours_real_tokens_share` is what is real in our batches.

To reach: at least 1.5 times the real tokens per second, which IMDB's lengths do not allow (76% are real: 1.31 by
padding); no more memory, the same score within noise; and at least 0.97 of the bare loop's speed over the same batches.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainingArguments,
    default_data_collator,
    get_scheduler,
    set_seed,
)

from benchmarks.results import save
from sweep.datasets import Example, Splits
from sweep.datasets.files import Files
from sweep.launch import preload
from sweep.meters.cpu import LiveStorages, model_tensors
from sweep.metrics.accuracy import Accuracy
from sweep.tasks.classification import Classification
from sweep.training.batch_order import training_order
from sweep.training.fit import fit
from sweep.training.options import Train

MAX_LENGTH, MICRO, ACCUMULATION, RATE = 256, 16, 2, 2e-3
LENGTHS = {
    "imdb_like": (226, 0.77),
    "paragraphs": (130, 0.7),
    "sentences": (19, 0.5),
}  # median in tokens, sigma of its logarithm
STEPS = {"imdb_like": 4, "paragraphs": 6, "sentences": 30}
WORDS = 2000


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(WORDS))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_input_names=inputs
    )


def examples(kind: str, count: int, seed: int) -> list[Example]:
    """Words at random; a quarter of them is of the label's own half of the vocabulary's first hundred."""
    source = random.Random(seed)
    median, sigma = LENGTHS[kind]
    rows: list[Example] = []
    for index in range(count):
        length = max(4, round(source.lognormvariate(0, sigma) * median))
        label = index % 2
        words = [
            source.randrange(50) + 50 * label if source.random() < 0.25 else source.randrange(100, WORDS)
            for _ in range(length)
        ]
        rows.append({"text": " ".join(map(str, words)), "label": str(label)})
    return rows


def model(seed: int) -> Any:
    set_seed(seed)
    base = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=WORDS + 4, dim=256, hidden_dim=1024, n_layers=2, n_heads=4, num_labels=2)
    )
    targets = ["q_lin", "k_lin", "v_lin", "out_lin"]
    # Both sides train the whole new head: the comparison is about training, not about what PEFT leaves frozen.
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=16,
        lora_alpha=32,
        lora_dropout=0.1,
        target_modules=targets,
        modules_to_save=["pre_classifier"],
    )
    return get_peft_model(base, config)


def settings(steps: int) -> Train:
    return Train(
        max_steps=steps,
        micro_batch_size=MICRO,
        gradient_accumulation_steps=ACCUMULATION,
        max_length=MAX_LENGTH,
        lr_scheduler_type="linear",
        optimizer="adamw_torch_fused",
        precision="fp32",
    )


class FromFirstBatch:
    """A collator that starts the clock: setting up takes each side the same few tenths of a second once."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, torch.Tensor]]):
        self.collate = collate
        self.started: float | None = None

    def __call__(self, rows: list[Any]) -> dict[str, torch.Tensor]:
        if self.started is None:
            self.started = time.process_time()
        return self.collate(rows)

    @property
    def seconds(self) -> float:
        return time.process_time() - (self.started or 0.0)


class Timed:
    """Seconds from the first batch on, and real tokens, of one training by one of three ways."""

    def __init__(self, task: Classification, rows: list[Example]):
        self.task, self.tokenizer = task, tokenizer()
        self.encoded = task.encode(self.tokenizer, rows, MAX_LENGTH)
        texts = [row["text"] for row in rows]
        padded = self.tokenizer(texts, truncation=True, padding="max_length", max_length=MAX_LENGTH)
        self.padded = [
            {"input_ids": ids, "attention_mask": mask, "labels": int(row["label"])}
            for ids, mask, row in zip(padded["input_ids"], padded["attention_mask"], rows, strict=True)
        ]

    def plain(self, trained: Any, steps: int, seed: int) -> tuple[float, int]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=MICRO,
                gradient_accumulation_steps=ACCUMULATION,
                learning_rate=RATE,
                max_steps=steps,
                seed=seed,
                logging_steps=50,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            )
            clock = FromFirstBatch(default_data_collator)
            trainer = Trainer(model=trained, args=arguments, train_dataset=self.padded, data_collator=clock)
            order = [int(i) for i in trainer._get_train_sampler(self.padded)]
            trainer.train()
            seconds = clock.seconds
        met = order[: steps * MICRO * ACCUMULATION]
        return seconds, sum(sum(self.padded[i]["attention_mask"]) for i in met)

    def ours(self, trained: Any, steps: int, seed: int) -> tuple[float, int]:
        clock = FromFirstBatch(self.task.collator(self.tokenizer))
        train = settings(steps)
        fitted = fit(trained, self.encoded, clock, train, learning_rate=RATE, seed=seed, is_causal=self.task.is_causal)
        return clock.seconds, fitted.tokens

    def bare(self, trained: Any, steps: int, seed: int) -> tuple[float, int]:
        train = settings(steps)
        order = training_order([len(row["input_ids"]) for row in self.encoded], train, seed)
        clock = FromFirstBatch(self.task.collator(self.tokenizer))
        weights = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
        schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=steps)
        trained.train()
        tokens, position = 0, 0
        for _ in range(steps):
            for _ in range(ACCUMULATION):
                batch = clock([self.encoded[i] for i in order[position : position + MICRO]])
                position += MICRO
                tokens += int(batch["attention_mask"].sum())
                (trained(**batch).loss / ACCUMULATION).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return clock.seconds, tokens

    def real_share(self, steps: int) -> float:
        """Of the tokens in our batches."""
        lengths = [len(row["input_ids"]) for row in self.encoded]
        order = training_order(lengths, settings(steps), 0)
        batches = [[lengths[i] for i in order[start : start + MICRO]] for start in range(0, len(order), MICRO)]
        return sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)

    def peak_bytes(self, way: str) -> int:
        """Of live tensors over three steps, the longest batch among them."""
        trained = model(0)
        storages = LiveStorages()
        for tensor in model_tensors(trained):
            storages.add(tensor)
        with storages:
            getattr(self, way)(trained, 3, 0)
        return storages.peak_bytes


def accuracy(timed: Timed, validation: list[Example], way: str, steps: int, seed: int) -> float:
    trained = model(seed)
    getattr(timed, way)(trained, steps, seed)
    trained.eval()
    evaluation = timed.task.evaluate(
        trained, timed.tokenizer, validation, 64, lambda batch: nullcontext(), max_length=MAX_LENGTH
    )
    return evaluation.scores["accuracy"]


def main(rounds: int = 3, score_steps: int = 40, seeds: int = 3) -> None:
    preload.initialise()  # without the libraries' warnings
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"rounds": rounds, "steps": str(STEPS), "score_steps": score_steps, "seeds": seeds}
    for kind in LENGTHS:
        rows, validation = examples(kind, 1024, 0), examples(kind, 256, 1)
        data = Files(train="unused.csv")
        task = Classification(data=data, metrics={"accuracy": Accuracy()}, score="accuracy")
        timed = Timed(task.bind(Splits(train=rows, validation=validation)), rows)
        rates: dict[str, list[float]] = {"plain": [], "ours": [], "bare": []}
        for way in rates:
            getattr(timed, way)(model(0), 2, 0)  # warm
        for round_ in range(rounds):
            for way, values in rates.items():
                seconds, tokens = getattr(timed, way)(model(round_), STEPS[kind], round_)
                values.append(tokens / seconds)
        figures[f"{kind}_real_tokens_share"] = sum(len(row["input_ids"]) for row in timed.encoded) / (
            MAX_LENGTH * len(rows)
        )
        figures[f"{kind}_ours_real_tokens_share"] = timed.real_share(STEPS[kind])
        for way, values in rates.items():
            figures[f"{kind}_{way}_tokens_per_second"] = statistics.median(values)
        for other in ("plain", "bare"):
            ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates[other], strict=True)]
            figures[f"{kind}_speed_ratio_to_{other}"] = statistics.median(ratios)
        figures[f"{kind}_memory_ratio_to_plain"] = timed.peak_bytes("ours") / timed.peak_bytes("plain")
        if kind == "sentences":  # quick enough for a score that has been learnt
            for way in ("plain", "ours"):
                scores = [accuracy(timed, validation, way, score_steps, seed) for seed in range(seeds)]
                figures[f"{kind}_{way}_accuracy_mean"] = statistics.mean(scores)
                figures[f"{kind}_{way}_accuracy_sd"] = statistics.stdev(scores)
    save("note_scripts", figures)


if __name__ == "__main__":
    main()
