"""The common part of tasks on whole texts: a text, or a pair of texts, as tokens, and a new head's output for each."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sweep.core.errors import UserError
from sweep.datasets import Example, LabelSet, Splits, place_of, without_role
from sweep.metrics import ModelOutputs
from sweep.tasks import Encoded, EncodedDataset, Evaluation, Task
from sweep.tasks.batching import by_length, mask, opened, padded, positions_of
from sweep.tasks.special_tokens import without_added

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


def label_arguments(labels: Sequence[str], problem_type: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Arguments of a model for these labels, and the padding token, by which decoders find the last token of a text."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "num_labels": len(labels),
        "problem_type": problem_type,
        "pad_token_id": tokenizer.pad_token_id,
    }


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """`AutoModelForSequenceClassification`: a new head on the base."""

    task_type: ClassVar[str] = "SEQ_CLS"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"

    @abstractmethod
    def number(self, label: str) -> int | float:
        """The head's target for a label."""

    def read(self, label: str) -> str:
        """The label as predictions are written, to compare with them."""
        return label

    @abstractmethod
    def answers(self, model: torch.nn.Module, logits: torch.Tensor) -> tuple[list[str], dict[str, list[Any]]]:
        """The predictions from the head's outputs (one row per example), and further columns of per-example results."""

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
        """A text or pair as the tokenizer encodes it. One that is too long is cut at the end; in a pair, the longer
        text is cut."""
        rows = _tokenized(tokenizer, examples, max_length)
        return EncodedDataset(
            [{**row, "labels": self.number(example["label"])} for row, example in zip(rows, examples, strict=True)],
            truncated=rows.truncated,
        )

    def inputs(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> Sequence[Sequence[int]]:
        return [row["input_ids"] for row in _tokenized(tokenizer, examples, sys.maxsize)]

    def collator(self, tokenizer: Tokenizer) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
            import torch

            return {**_inputs(rows, tokenizer), "labels": torch.tensor([row["labels"] for row in rows])}

        return collate

    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
        max_length: int | None = None,
    ) -> Evaluation:
        import torch

        limits = [limit for limit in (max_length, positions_of(model)) if limit]
        encoded = _tokenized(tokenizer, examples, min(limits, default=sys.maxsize))
        device = next(model.parameters()).device
        logits: list[Any] = [None] * len(encoded)
        for number, indices in enumerate(by_length([len(row["input_ids"]) for row in encoded], batch_size)):
            with metered(number), torch.no_grad():
                inputs = _inputs([encoded[i] for i in indices], tokenizer)
                found = model(**{key: value.to(device) for key, value in inputs.items()}).logits.float().cpu()
            for index, row in zip(indices, found, strict=True):
                logits[index] = row
        predictions, more = self.answers(model, torch.stack(logits))
        references = [self.read(example["label"]) for example in examples]
        rows = [
            {
                "index": index,
                **{role: example[role] for role in ("text", "text_pair") if role in example},
                "reference": references[index],
                "prediction": predictions[index],
                **{name: values[index] for name, values in more.items()},
            }
            for index, example in enumerate(examples)
        ]
        return self.measured(ModelOutputs(references=references, predictions=predictions), rows, encoded.truncated)


def check_texts(splits: Splits, sets: bool = False) -> dict[str, list[str]]:
    """Labels by split, for the splits that have examples. `sets`: whether an example may have several labels.

    Raises:
        UserError: where an example has no text or no label, or several labels.
    """
    found = {}
    for split in ("train", "validation", "test") if splits.test else ("train", "validation"):
        examples = getattr(splits, split)
        for role in ("text", "label"):
            if not any(role in example for example in examples):
                raise UserError(without_role(role, split, splits.columns))
            for index, example in enumerate(examples):
                if role not in example or (role == "label" and not example["label"].strip()):
                    where = place_of(example, index)
                    raise UserError(f"{where} of the {split} split has no {role}: {str(dict(example))[:200]}")
                if isinstance(example[role], LabelSet) and not sets:
                    raise UserError(
                        f"{place_of(example, index)} of the {split} split has a list as label: {example[role][:80]}; "
                        "name one of its values (task.data.columns.label=NAME.0), or use task=multi_label"
                    )
        found[split] = [example["label"] for example in examples]
    return found


def _tokenized(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
    """Token ids (and token types, where the model has them) of texts or pairs, and how many were cut."""
    if any(("text_pair" in example) != ("text_pair" in examples[0]) for example in examples):
        raise UserError("some examples have a text_pair and some have none")
    roles = ("text", "text_pair") if "text_pair" in examples[0] else ("text",)

    def tokens(some: Sequence[Example], **options: Any) -> dict[str, list[Any]]:
        texts = (without_added([example[role] for example in some], tokenizer) for role in roles)
        return dict(tokenizer(*texts, return_attention_mask=False, **options))

    columns = tokens(examples, verbose=False)
    too_long = [index for index, ids in enumerate(columns["input_ids"]) if len(ids) > max_length]
    if too_long:
        cut = tokens([examples[i] for i in too_long], truncation=True, max_length=max_length)
        for key, values in cut.items():
            for index, value in zip(too_long, values, strict=True):
                columns[key][index] = value
    columns["input_ids"] = [opened(ids, tokenizer) for ids in columns["input_ids"]]
    if "token_type_ids" in columns:
        columns["token_type_ids"] = [types or [tokenizer.pad_token_type_id] for types in columns["token_type_ids"]]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return EncodedDataset(rows, truncated=len(too_long))


def _inputs(rows: Sequence[Encoded], tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    ids = [row["input_ids"] for row in rows]
    inputs = {"input_ids": padded(ids, tokenizer.pad_token_id), "attention_mask": mask(ids)}
    if "token_type_ids" in rows[0]:
        inputs["token_type_ids"] = padded([row["token_type_ids"] for row in rows], tokenizer.pad_token_type_id)
    return inputs
