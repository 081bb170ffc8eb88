"""Tasks over a few examples, and models to train on them within a second."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sweep.datasets import Dataset, Example, Splits
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.pearson import Pearson
from sweep.metrics.perplexity import Perplexity
from sweep.metrics.spearman import Spearman
from sweep.models.pretrained import Pretrained
from sweep.tasks import Task
from sweep.tasks.classification import Classification
from sweep.tasks.generation import Generation
from sweep.tasks.regression import Regression
from sweep.training.fit import fit as training_fit
from sweep.training.options import Train


class Nothing(Dataset):
    def load(self) -> Splits:
        return Splits(train=[], validation=[])


REVIEWS: list[Example] = [
    {"text": f"the film was {'good' if i % 2 else 'bad'}{' and very fine' * (i % 4)}", "label": ("neg", "pos")[i % 2]}
    for i in range(24)
]
GRADES: list[Example] = [{**review, "label": f"{i % 5 / 2}"} for i, review in enumerate(REVIEWS)]
PAIRS: list[Example] = [{"prompt": f"say {i}{'!' * (i % 7)}", "response": f" {i} it is"} for i in range(20)]


def classification(**changes: Any) -> Classification:
    values = {"data": Nothing(), "metrics": {"accuracy": Accuracy()}, "score": "accuracy", **changes}
    return Classification(**values).bind(Splits(train=REVIEWS, validation=REVIEWS))


def regression(**changes: Any) -> Regression:
    values = {"data": Nothing(), "metrics": {"pearson": Pearson(), "spearman": Spearman()}, "score": "pearson"}
    return Regression(**values, **changes).bind(Splits(train=GRADES, validation=GRADES))


def generation(kind: type = Generation, **changes: Any) -> Any:
    metrics = {"exact_match": ExactMatch(), "perplexity": Perplexity()}
    return kind(**{"data": Nothing(), "metrics": metrics, "score": "exact_match", "max_new_tokens": 8, **changes})


def loaded(task: Task, folder: Path) -> tuple[Any, Any]:
    model = Pretrained(path=str(folder))
    tokenizer = model.load_tokenizer()
    torch.manual_seed(0)  # a new head is randomly initialised
    base = model.load(task.auto_class(), None, "cpu", task.model_arguments(tokenizer))
    return base.eval(), tokenizer


def without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # T5's attention
            module.dropout = 0.0


def evaluate(task: Task, model: Any, tokenizer: Any, examples: list[Example], batch: int = 4, **more: Any) -> Any:
    return task.evaluate(model, tokenizer, examples, batch, lambda number: nullcontext(), **more)


def fit(
    model: Any, task: Task, tokenizer: Any, examples: list[Example], rate: float = 1e-3, **changes: Any
) -> list[float]:
    values = {"max_steps": 1, "micro_batch_size": 8, "max_length": 64, "optimizer": "adamw_torch", **changes}
    losses: list[float] = []

    class Losses:
        def metrics(self, step: int, values: dict[str, float]) -> None:
            losses.append(values["train/loss"])

        def progress(self, label: str, done: int, total: int) -> None:
            return

    rows = task.encode(tokenizer, examples, values["max_length"])
    training_fit(
        model,
        rows,
        task.collator(tokenizer),
        Train(**values),
        learning_rate=rate,
        seed=0,
        is_causal=task.is_causal,
        report=Losses(),
    )
    return losses
