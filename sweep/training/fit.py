"""Training: one set-up of the Hugging Face Trainer for all variants."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from sweep.core.errors import UserError
from sweep.core.reporter import Reporter, silent
from sweep.meters import MemoryMeter
from sweep.meters.throughput import Throughput
from sweep.runtime import distributed, precision, sharding
from sweep.training.batch_order import training_order
from sweep.training.divergence import DivergenceWatch
from sweep.training.trainer import WeightedTrainer

if TYPE_CHECKING:
    from sweep.tasks import Encoded
    from sweep.training.options import Train

METERED_STEPS, METERED_EVERY = 3, 25  # see `is_metered`
# The other ranks wait for the main one while it evaluates; after the default of half an hour, NCCL would end them. A
# rank that has died is noticed by the parent of all ranks.
_RANKS_WAIT_SECONDS = 7 * 24 * 3600

Evaluate = Callable[[], tuple[float, float]]  # → the score and its standard error


class Pruned(Exception):
    """Training was stopped at `step` with `score`, since other settings are clearly better."""

    def __init__(self, reason: str, step: int, score: float):
        super().__init__(reason)
        self.step = step
        self.score = score


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of training, in addition to the model: `losses` by step, and `loss`, the mean over their last
    tenth."""

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
    is_causal: bool = True,
    meter: MemoryMeter | None = None,
    report: Reporter = silent,
    label: str = "training",
    evaluate: Evaluate | None = None,
    aside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Fit:
    """Train `model` in place for `train.max_steps` steps.

    The order of the examples depends on `seed` and on their lengths only, so that all variants see the same batches.
    The loss is the mean over the labels of the whole batch, for every division into micro-batches.

    Args:
        model: moved to the device by its caller, unless it is sharded.
        train: `max_steps` must be set.
        learning_rate: its highest value in the schedule.
        optimizer: the name that Transformers has for it, instead of `train.optimizer`.
        report: receives loss and progress, and decides whether the run stops after an evaluation.
        evaluate: called every `train.eval_steps` steps; its time and memory are not measured.
        aside: gives the context of each such evaluation. Every rank enters it, also those that wait for the main one.

    Raises:
        Pruned: the report has a reason to stop.
        Diverged: the loss is NaN or infinite, or stays far above the loss of random guessing.
        UserError: one batch needs more examples than there are.
    """
    if train.batch_size > len(examples):
        raise UserError(
            f"train.micro_batch_size = {train.micro_batch_size} × gradient_accumulation_steps = "
            f"{train.gradient_accumulation_steps} needs {train.batch_size} examples for one batch; the data has "
            f"{len(examples)}. Lower one of them"
        )
    order = training_order([length(example) for example in examples], train, seed)
    on_gpu = train.sharded and torch.cuda.is_available()  # the model moves there later
    device_type = "cuda" if on_gpu else next(model.parameters()).device.type
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
            ddp_find_unused_parameters=False,
            ddp_timeout=_RANKS_WAIT_SECONDS,
            seed=seed,
            data_seed=seed,
            train_sampling_strategy="sequential",
            torch_compile=train.torch_compile,
            use_liger_kernel=train.use_liger_kernel,
            dataloader_drop_last=True,
            dataloader_pin_memory=device_type == "cuda",
            remove_unused_columns=False,
            report_to=[],
            logging_strategy="steps",  # each step: the log has the gradient's norm
            logging_steps=1,
            save_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            **(sharding.arguments() if train.sharded else {}),
        )
        if arguments.n_gpu > 1:
            raise UserError(
                f"the process of a run sees {arguments.n_gpu} GPUs, and the Trainer would split each batch over them: "
                "set CUDA_VISIBLE_DEVICES to one GPU; for several, train.devices_per_run"
            )
        watcher = _Watcher(train, meter, report, label, evaluate, aside)
        trainer = WeightedTrainer(
            on_micro_batch=watcher.on_micro_batch,
            is_causal=is_causal,
            label_smoothing=train.label_smoothing,
            model=model,
            args=arguments,
            train_dataset=[examples[index] for index in order],
            data_collator=collate,
            callbacks=[watcher],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            watcher.finish()
        # accelerate leaves its autocast on the forward of the outermost model. FFT generates with that model, and an
        # adapter with its base, which has no autocast: the variants would be evaluated in different precision.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    return watcher.result()


def is_metered(step: int) -> bool:
    """Whether a memory meter measures this step (from 1), if measuring costs time. The first step has no optimizer
    state yet; the second has it, and has the longest micro-batch; the third and every 25th show whether memory grows.
    """
    return step <= METERED_STEPS or step % METERED_EVERY == 0


def length(example: Encoded) -> int:
    """Tokens of an example. An encoder-decoder's example has the tokens of both."""
    labels, ids = example["labels"], example["input_ids"]
    return len(ids) + (len(labels) if isinstance(labels, list) and len(labels) != len(ids) else 0)


class _Watcher(TrainerCallback):
    """Clock, memory window, divergence check and evaluation around each optimizer step."""

    def __init__(
        self,
        train: Train,
        meter: MemoryMeter | None,
        report: Reporter,
        label: str,
        evaluate: Evaluate | None,
        aside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._max_steps = train.max_steps
        self._sharded = train.sharded
        self._eval_steps = train.eval_steps if evaluate is not None else None
        self._evaluate = evaluate
        self._aside = aside
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
        self._divergence = DivergenceWatch()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        vocabulary = getattr(model.config, "vocab_size", None)
        self._divergence = DivergenceWatch(math.log(vocabulary) if vocabulary else math.inf, scaled=args.fp16)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        slowed = False
        if self._meter is not None:
            number = state.global_step + 1
            wanted = is_metered(number)
            slowed = wanted and self._meter.costs_time
            if wanted:
                self._meter.watch(model, kwargs.get("optimizer"))
            self._meter.synchronize()
            self._window = self._meter.step(number, wanted)
            self._window.__enter__()
        self._throughput.step_begins(counts=not slowed)

    def on_micro_batch(self, loss: torch.Tensor, tokens: torch.Tensor) -> None:
        self._micro.append(loss)
        self._micro_tokens.append(tokens)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        summed = [float(torch.stack(self._micro).sum()), float(torch.stack(self._micro_tokens).sum())]  # waits
        loss, tokens = distributed.total(summed)
        self._micro.clear()
        self._micro_tokens.clear()
        if self._meter is not None:
            self._meter.synchronize()
        self._tokens += int(tokens)
        self._throughput.add_tokens(int(tokens))
        self._seconds += self._throughput.step_ended()
        self.close()
        self._losses.append(loss / distributed.ranks())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """After `on_step_end`: `grad_norm` is the norm of the gradient before clipping. The log at the end of training
        has none."""
        if "grad_norm" not in logs:
            return
        step, loss = state.global_step, self._losses[-1]
        self._divergence.check(step, loss, logs["grad_norm"])
        self._report.metrics(step, {"train/loss": loss})
        self._report.progress(self._label, step, self._max_steps)
        if self._eval_steps and step % self._eval_steps == 0 and step < self._max_steps:
            with self._aside():
                self._evaluate_now(step, kwargs["model"])

    def _evaluate_now(self, step: int, model: torch.nn.Module) -> None:
        """Evaluate during training. Training does not change: the model's mode and the random state are restored.

        If the ranks hold the same weights, the main rank evaluates; if they hold parts, all ranks do. All ranks follow
        the answer that the main rank receives.
        """
        found: tuple[str | None, float] | None = None
        if distributed.is_main() or self._sharded:
            with self._meter.aside() if self._meter is not None else nullcontext(), torch.random.fork_rng():
                model.eval()
                score, error = self._evaluate()
                model.train()
            steps = self._meter.timeline if self._meter is not None else []
            peak = max(step.peak_bytes for step in steps) + self._meter.paged_bytes() if steps else None
            found = self._report.should_prune(step, score, error, peak), score
        reason, score = distributed.agreed(found)
        if reason is not None:
            raise Pruned(reason, step, score)

    def close(self) -> None:
        """Leave the memory window, if one is open."""
        if self._window is not None:
            window, self._window = self._window, None
            window.__exit__(None, None, None)

    def finish(self) -> None:
        """Training has ended, also by an error."""
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
