"""Text, or a pair of texts → one label of a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sweep.datasets import Example, Splits
from sweep.errors import UserError, alternatives
from sweep.metrics import Answers
from sweep.metrics.f1 import in_order
from sweep.tasks import Encoded, Encodings, Evaluation, Task
from sweep.tasks.batching import by_length, mask, padded, positions_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """`AutoModelForSequenceClassification`: a new head on the base. `labels` fixes their names and order; null takes
    those of the data, whole numbers by value, others by text."""

    task_type: ClassVar[str] = "SEQ_CLS"
    token_loss: ClassVar[bool] = False

    labels: list[str] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.labels is not None and len(set(self.labels)) < max(2, len(self.labels)):
            yield "labels", "must be at least two different ones"
        for name, metric in self.metrics.items():
            if metric.needs_likelihood:
                yield "metrics", f"{name} is about generated text; use accuracy, f1_macro, matthews or the like"

    def bind(self, splits: Splits) -> Self:
        """Labels of training and validation together, so that a rare one in validation alone is counted as missed.

        Raises:
            UserError: for a missing text or label, a label that is not among `labels`, a split of one label only, and a
                metric that does not fit the labels.
        """
        counts: Counter[str] = Counter()
        for name in ("train", "validation", "test"):
            examples = getattr(splits, name)
            if not examples and name == "test":
                continue
            _check_roles(examples, name, splits.columns)
            found = Counter(example["label"] for example in examples)
            if len(found) < 2 and name != "test":
                raise UserError(
                    f"the {name} split has no label but {next(iter(found))!r} ({len(examples)} examples): nothing can "
                    "be learnt or told from it. A file that is sorted by label, and cut, is the usual cause: draw the "
                    "rows at random from the whole"
                )
            counts.update(found)
        labels = self.labels or in_order(set(counts))
        unknown = sorted(counts.keys() - set(labels))
        if unknown:
            raise UserError(f"task.labels: the data also has {unknown[0]!r}; {alternatives(unknown[0], labels)}")
        faults = [f"task.metrics.{n} {fault}" for n, m in self.metrics.items() for fault in m.label_faults(labels)]
        if faults:
            raise UserError("\n".join(faults))
        return replace(self, labels=labels)

    def model_arguments(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """The padding token too: decoders find the last token of a text by it."""
        labels = self._bound()
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "num_labels": len(labels),
            "pad_token_id": tokenizer.pad_token_id,
        }

    def auto_class(self) -> type:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> Encodings:
        """The tokenizer's own form of a text or pair; what is too long is cut at the end, of a pair the longer one."""
        number = {label: index for index, label in enumerate(self._bound())}
        rows = tokenized(tokenizer, examples, max_length)
        return Encodings(
            [{**row, "labels": number[example["label"]]} for row, example in zip(rows, examples, strict=True)],
            truncated=rows.truncated,
        )

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
            import torch

            return {**_inputs(rows, tokenizer), "labels": torch.tensor([row["labels"] for row in rows])}

        return collate

    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
        max_length: int | None = None,
    ) -> Evaluation:
        """The most probable label of each example. Rows hold its probability too, as `confidence`."""
        import torch

        labels = self.labels or [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        limits = [limit for limit in (max_length, positions_of(model), tokenizer.model_max_length) if limit]
        encoded = tokenized(tokenizer, examples, min(limits))
        device = next(model.parameters()).device
        chosen: list[tuple[int, float]] = [(0, 0.0)] * len(encoded)
        for number, indices in enumerate(by_length([len(row["input_ids"]) for row in encoded], batch_size)):
            with metered(number), torch.no_grad():
                inputs = _inputs([encoded[i] for i in indices], tokenizer)
                logits = model(**{key: value.to(device) for key, value in inputs.items()}).logits
                best = logits.float().softmax(-1).max(-1)
            for index, label, probability in zip(indices, best.indices.tolist(), best.values.tolist(), strict=True):
                chosen[index] = (label, probability)
        predictions = [labels[label] for label, _ in chosen]
        rows = [
            {
                "index": index,
                "text": example["text"],
                **({"text_pair": example["text_pair"]} if "text_pair" in example else {}),
                "reference": example["label"],
                "prediction": predictions[index],
                "confidence": chosen[index][1],
            }
            for index, example in enumerate(examples)
        ]
        references = [example["label"] for example in examples]
        return self.measured(Answers(references=references, predictions=predictions), rows, encoded.truncated)

    def without_data(self) -> Self:
        """Two labels: how many there are moves no byte that counts."""
        return self if self.labels else replace(self, labels=["0", "1"])

    def _bound(self) -> list[str]:
        if self.labels is None:
            raise ValueError("the labels are not known before bind()")
        return self.labels


def _check_roles(examples: Sequence[Example], split: str, columns: Sequence[str]) -> None:
    """Every example has a text and a label."""
    for role in ("text", "label"):
        if not any(role in example for example in examples):
            raise UserError(
                f"task.data.columns.{role} is not given, and no column is named {role!r}; {alternatives(role, columns)}"
            )
        without = next((e for e in examples if role not in e or (role == "label" and not e["label"].strip())), None)
        if without is not None:
            raise UserError(f"an example of the {split} split has no {role}: {str(dict(without))[:200]}")


def tokenized(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> Encodings:
    """Token ids (and token types, where the model has them) of texts or pairs, with how many did not fit."""
    if any(("text_pair" in example) != ("text_pair" in examples[0]) for example in examples):
        raise UserError("some examples have a text_pair and some have none")
    texts = [example["text"] for example in examples]
    pairs = [example["text_pair"] for example in examples] if "text_pair" in examples[0] else None
    whole = tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
    too_long = [index for index, ids in enumerate(whole["input_ids"]) if len(ids) > max_length]
    columns = dict(whole)
    if too_long:
        cut = tokenizer(
            [texts[i] for i in too_long],
            [pairs[i] for i in too_long] if pairs else None,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        for key, values in cut.items():
            for index, value in zip(too_long, values, strict=True):
                columns[key][index] = value
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Encodings(rows, truncated=len(too_long))


def _inputs(rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    ids = [row["input_ids"] for row in rows]
    inputs = {"input_ids": padded(ids, tokenizer.pad_token_id), "attention_mask": mask(ids)}
    if "token_type_ids" in rows[0]:
        inputs["token_type_ids"] = padded([row["token_type_ids"] for row in rows], tokenizer.pad_token_type_id)
    return inputs
