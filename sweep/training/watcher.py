"""What happens around each optimizer step: clock, memory window, divergence check, evaluation, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from sweep.core.reporter import Reporter
from sweep.meters import MemoryMeter
from sweep.meters.throughput import Throughput
from sweep.runtime import distributed
from sweep.training.divergence import DivergenceWatch
from sweep.training.early_stopping import EarlyStopping

if TYPE_CHECKING:
    from sweep.training.options import Train

METERED_STEPS, METERED_EVERY = 3, 25  # see `is_metered`
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


def is_metered(step: int) -> bool:
    """Whether a memory meter measures this step (from 1), if measuring costs time. The first step has no optimizer
    state yet; the second has it, and has the longest micro-batch; the third and every 25th show whether memory grows.
    """
    return step <= METERED_STEPS or step % METERED_EVERY == 0


class Watcher(TrainerCallback):
    """Clock, memory window, divergence check and evaluation around each optimizer step.

    Args:
        stopping: ends training after evaluations without a better score.
        others: the user's callbacks; `on_evaluate` of each receives the score of each evaluation.
    """

    def __init__(
        self,
        train: Train,
        meter: MemoryMeter | None,
        report: Reporter,
        label: str,
        evaluate: Evaluate | None,
        aside: Callable[[], AbstractContextManager[None]],
        stopping: EarlyStopping | None,
        others: Sequence[TrainerCallback],
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
        self._stopping = stopping
        self._others = others

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
                score = self._evaluate_now(step, kwargs["model"])
            for other in self._others:
                other.on_evaluate(args, state, control, metrics={"eval_score": score}, **kwargs)
            if self._stopping is not None and self._stopping.is_over(score):
                control.should_training_stop = True

    def _evaluate_now(self, step: int, model: torch.nn.Module) -> float:
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
        return score

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
