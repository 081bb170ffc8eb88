"""The setup to load and evaluate a trained model: base, tokenizer, task and validation examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.config.schema import RunConfig
from sweep.datasets import Example
from sweep.models import Model
from sweep.runtime import precision
from sweep.tasks import Evaluation, Task
from sweep.tasks.batching import mask, padded, positions_of
from sweep.tasks.lengths import usual_length
from sweep.training_run import device_type

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sweep.deployment.comparison_options import AdapterComparison

_FEW = 8  # examples whose logits are compared


@dataclass(frozen=True, kw_only=True)
class EvaluationSetup:
    """`arguments` are the task's arguments of `from_pretrained`; `compute` is the precision of matrix products."""

    task: Task
    model: Model
    validation: Sequence[Example]
    tokenizer: PreTrainedTokenizerBase
    arguments: Mapping[str, Any]
    quantization: Any | None
    compute: str
    max_length: int
    batch_size: int
    device: str
    test: Sequence[Example]

    @classmethod
    def of(cls, config: RunConfig) -> EvaluationSetup:
        """The setup of a run of this config."""
        train = config.train
        return cls.at(config, train.precision, train.max_length, train.eval_batch_size)

    @classmethod
    def at(
        cls, config: RunConfig | AdapterComparison, precision_name: str, max_length: int | None, batch_size: int
    ) -> EvaluationSetup:
        device = device_type()
        compute = precision.resolve(precision_name, device)
        data, tokenizer = config.task.data.load(), config.model.load_tokenizer()
        architecture = config.model.architecture()
        task = config.task.bind(data).for_base(architecture)
        if max_length is None:  # of a run that found its own
            max_length = usual_length(task, tokenizer, data.train, architecture).tokens
        return cls(
            task=task,
            model=config.model,
            validation=data.validation,
            test=data.test,
            tokenizer=tokenizer,
            arguments=task.model_arguments(tokenizer),
            quantization=config.variant.quantization(precision.dtype_of(compute), task.task_type),
            compute=compute,
            max_length=max_length,
            batch_size=batch_size,
            device=device,
        )

    def base(self, model: Model | None = None, quantized: bool = True) -> PreTrainedModel:
        """The base, or another `model` for the same task; quantised as in training, or not."""
        quantization = self.quantization if quantized else None
        return (model or self.model).load(self.task.auto_class(), quantization, self.device, self.arguments)

    def score(self, model: torch.nn.Module) -> Evaluation:
        """The evaluation on the validation split, as at the end of a run."""
        return self._evaluate(model, self.validation)

    def test_scores(self, model: torch.nn.Module) -> dict[str, float]:
        """The scores on the test split, if the data has one: the validation scores of a selected run are too high."""
        return self._evaluate(model, self.test).scores if self.test else {}

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """The model's outputs for a few validation examples, with its weights as they are. Only equal models give equal
        ones; a decoder after an encoder reads the same texts."""
        import torch

        ids = self.task.inputs(self.tokenizer, self.validation[:_FEW])
        limit = min(self.max_length, positions_of(model) or self.max_length)
        rows = [list(row[:limit]) for row in ids]
        inputs = {"input_ids": padded(rows, self.tokenizer.pad_token_id), "attention_mask": mask(rows)}
        if self.task.task_type == "SEQ_2_SEQ_LM":
            inputs["decoder_input_ids"] = inputs["input_ids"]
        model.eval()
        half = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
        with torch.no_grad(), torch.autocast(self.device, half) if half else nullcontext():
            return model(**{name: tensor.to(self.device) for name, tensor in inputs.items()}).logits.float().cpu()

    def _evaluate(self, model: torch.nn.Module, examples: Sequence[Example]) -> Evaluation:
        model.eval()
        precision.cast_weights(model, self.compute)
        with precision.autocast(self.compute, self.device):
            options = {"metered": lambda batch: nullcontext(), "max_length": self.max_length}
            return self.task.evaluate(model, self.tokenizer, examples, self.batch_size, **options)
