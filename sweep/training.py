"""Training: the Hugging Face Trainer, set up the one way that all variants share."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sweep import precision
from sweep.divergence import DivergenceWatch
from sweep.errors import UserError
from sweep.meters import MemoryMeter
from sweep.meters.throughput import Throughput
from sweep.report import Report, silent

if TYPE_CHECKING:
    from sweep.config import Train
    from sweep.tasks import Encoded

# The steps that the memory meter watches where watching costs time: the first has no optimizer state yet, the second
# has it and meets the longest micro-batch, the third and one now and then show whether anything grows.
METERED_STEPS = 3
METERED_EVERY = 25
LONGEST_AT_STEP = 1


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What training left behind, beside the model: the loss of each step, and its mean over the last tenth of them."""

    steps: int
    tokens: int
    losses: Sequence[float]
    loss: float
    train_seconds: float
    tokens_per_second: float | None


def fit(
    model: torch.nn.Module,
    examples: Sequence[Encoded],
    collate: Callable[[list[Encoded]], dict[str, torch.Tensor]],
    train: Train,
    *,
    learning_rate: float,
    seed: int,
    optimizer: str | None = None,
    token_loss: bool = True,
    meter: MemoryMeter | None = None,
    report: Report = silent,
    label: str = "training",
) -> Fit:
    """Train `model` in place for `train.max_steps` steps.

    The order of the examples follows from `seed` and their lengths alone, so that all variants see the same batches.
    With `token_loss` the model's loss is over the tokens of the whole batch, however it is cut into micro-batches;
    without, it is the mean over micro-batches.

    Raises:
        Diverged: as soon as the loss is NaN or infinite, or stays far above what guessing would score.
        UserError: where one batch needs more examples than there are.
    """
    if train.batch_size > len(examples):
        raise UserError(
            f"train.micro_batch_size = {train.micro_batch_size} × gradient_accumulation_steps = "
            f"{train.gradient_accumulation_steps} needs {train.batch_size} examples for one batch; the data has "
            f"{len(examples)}. Lower one of them"
        )
    order = training_order([_length(example) for example in examples], train, seed)
    device_type = next(model.parameters()).device.type
    resolved = precision.resolve(train.precision, device_type)
    with tempfile.TemporaryDirectory(prefix="paretune-trainer-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=train.max_steps,
            per_device_train_batch_size=train.micro_batch_size,
            gradient_accumulation_steps=train.gradient_accumulation_steps,
            learning_rate=learning_rate,
            lr_scheduler_type=train.lr_scheduler_type,
            warmup_steps=math.ceil(train.warmup_ratio * train.max_steps),
            optim=optimizer or train.optimizer,
            adam_beta2=train.adam_beta2,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            bf16=resolved == "bf16",
            fp16=resolved == "fp16",
            activation_checkpointing=train.activation_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False} if train.activation_checkpointing else None,
            use_cpu=device_type == "cpu",
            seed=seed,
            data_seed=seed,
            torch_compile=train.compile,
            use_liger_kernel=train.liger,
            dataloader_drop_last=True,
            dataloader_pin_memory=device_type == "cuda",
            remove_unused_columns=False,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
        )
        watcher = _Watcher(train.max_steps, meter, report, label)
        trainer = _OrderedTrainer(
            order=order,
            watcher=watcher,
            model=model,
            args=arguments,
            train_dataset=list(examples),
            data_collator=collate,
            callbacks=[watcher],
        )
        trainer.remove_callback(PrinterCallback)
        if not token_loss:
            # transformers takes any labels for tokens to be foretold, drops the first, and relies on the model to
            # divide by their count: accumulated gradients would be too large by their number.
            trainer.model_accepts_loss_kwargs = False
        try:
            trainer.train()
        finally:
            watcher.finish()
        # accelerate leaves its autocast on the outermost model's forward, which is what FFT generates with and what an
        # adapter's base does not have: the variants would be evaluated in different precision.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    return watcher.result()


def _length(example: Encoded) -> int:
    """Tokens of an example; of an encoder's and its decoder's, both."""
    labels, ids = example["labels"], example["input_ids"]
    return len(ids) + (len(labels) if isinstance(labels, list) and len(labels) != len(ids) else 0)


def training_order(lengths: Sequence[int], train: Train, seed: int) -> list[int]:
    """Indices of the examples in the order in which training meets them; `max_steps` × `batch_size` of them.

    Every pass is a fresh permutation. With `group_by_length`, examples of similar length share a micro-batch (sorted
    inside windows of 16 micro-batches), so that less is padding. The longest micro-batch of all is then exchanged with
    the last one of the second step: an out-of-memory comes early, and the memory meter sees the peak.
    """
    micro = train.micro_batch_size
    generator = random.Random(seed)
    batches: list[list[int]] = []
    needed = train.max_steps * train.gradient_accumulation_steps
    while len(batches) < needed:
        batches.extend(_one_pass(lengths, micro, train.group_by_length, generator))
    batches = batches[:needed]
    longest = max(range(needed), key=lambda b: (max(lengths[i] for i in batches[b]), -b))
    early = min(LONGEST_AT_STEP, train.max_steps - 1) * train.gradient_accumulation_steps
    early += train.gradient_accumulation_steps - 1
    batches[early], batches[longest] = batches[longest], batches[early]
    return [index for batch in batches for index in batch]


def _one_pass(lengths: Sequence[int], micro: int, grouped: bool, generator: random.Random) -> Iterator[list[int]]:
    permutation = list(range(len(lengths)))
    generator.shuffle(permutation)
    whole = len(permutation) // micro * micro
    window = micro * 16 if grouped else micro
    for start in range(0, whole, window):
        part = permutation[start : min(start + window, whole)]
        if grouped:
            part.sort(key=lambda index: lengths[index])
        batches = [part[i : i + micro] for i in range(0, len(part), micro)]
        generator.shuffle(batches)
        yield from batches


class _OrderedTrainer(Trainer):
    """The Trainer with our order of examples, and a look at each loss as it comes."""

    def __init__(self, *, order: list[int], watcher: _Watcher, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._order = order
        self._watcher = watcher

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> list[int]:
        return self._order

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._watcher.saw_gradient_norm(norm)
        return norm

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        tokens = inputs.pop("tokens") if "tokens" in inputs else inputs["attention_mask"].sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._watcher.saw_micro_batch(loss, tokens)
        return loss


class _Watcher(TrainerCallback):
    """Clock, memory window and divergence check around each optimizer step."""

    def __init__(self, max_steps: int, meter: MemoryMeter | None, report: Report, label: str) -> None:
        self._max_steps = max_steps
        self._meter = meter
        self._report = report
        self._label = label
        self._throughput = Throughput(skipped_steps=METERED_STEPS)
        self._window: Any = None
        self._losses: list[float] = []
        self._micro: list[torch.Tensor] = []
        self._micro_tokens: list[torch.Tensor] = []
        self._tokens = 0
        self._seconds = 0.0
        self._gradient_norm: Any = None
        self._divergence = DivergenceWatch()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        vocabulary = getattr(model.config, "vocab_size", None)
        self._divergence = DivergenceWatch(math.log(vocabulary) if vocabulary else math.inf, scaled=args.fp16)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        slowed = False
        if self._meter is not None:
            number = state.global_step + 1
            wanted = number <= METERED_STEPS or number % METERED_EVERY == 0
            slowed = wanted and self._meter.costs_time
            if wanted:
                self._meter.watch(model, kwargs.get("optimizer"))
            self._meter.synchronize()
            self._window = self._meter.step(number, wanted)
            self._window.__enter__()
        self._throughput.step_begins(counts=not slowed)

    def saw_micro_batch(self, loss: torch.Tensor, tokens: torch.Tensor) -> None:
        self._micro.append(loss)
        self._micro_tokens.append(tokens)

    def saw_gradient_norm(self, norm: Any) -> None:
        self._gradient_norm = norm

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = float(torch.stack(self._micro).sum())  # waits for the device
        tokens = int(torch.stack(self._micro_tokens).sum())
        self._micro.clear()
        self._micro_tokens.clear()
        if self._meter is not None:
            self._meter.synchronize()
        self._tokens += tokens
        self._throughput.add_tokens(tokens)
        self._seconds += self._throughput.step_ended()
        self.close()
        self._losses.append(loss)
        norm, self._gradient_norm = self._gradient_norm, None
        self._divergence.check(state.global_step, loss, None if norm is None else float(norm))
        self._report.metrics(state.global_step, {"train/loss": loss})
        self._report.progress(self._label, state.global_step, self._max_steps)

    def close(self) -> None:
        """Leave the memory window, if one is open."""
        if self._window is not None:
            window, self._window = self._window, None
            window.__exit__(None, None, None)

    def finish(self) -> None:
        """The end of training, also by an error."""
        self.close()
        if self._meter is not None:
            self._meter.close_timeline(len(self._losses))

    def result(self) -> Fit:
        last = self._losses[-max(1, len(self._losses) // 10) :]
        return Fit(
            steps=len(self._losses),
            tokens=self._tokens,
            losses=tuple(self._losses),
            loss=sum(last) / len(last),
            train_seconds=self._seconds,
            tokens_per_second=self._throughput.tokens_per_second,
        )
