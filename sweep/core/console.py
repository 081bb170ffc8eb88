"""What a person sees while runs go on: a line per finished run, and below it, on a terminal, how far the study is."""

from __future__ import annotations

import logging
import os
import sys

from tqdm import tqdm

from sweep.core.errors import first_line
from sweep.core.formatting import gib
from sweep.core.record import Outcome, Record


class ConsoleHandler(logging.StreamHandler):
    """Log lines go above the bar instead of through it."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        if _Bar.current is None:
            super().emit(record)
        else:
            tqdm.write(self.format(record), file=sys.stdout)


class _Bar:
    current: tqdm | None = None


class Progress:
    """A bar over the runs of a study, with the phase of a running one: `mine 3/8 runs [01:10<01:57, 2 running]
    lora_r8 · seed 0: training 120/300`. Nothing is drawn where standard error is not a terminal."""

    def __init__(self, total: int, study: str | None = None):
        drawn = sys.stderr.isatty()
        sized = drawn and os.get_terminal_size(sys.stderr.fileno()).columns > 0  # not all terminals know it
        self._bar = tqdm(
            total=total,
            disable=not drawn,
            dynamic_ncols=sized,
            ncols=None if sized else 80,
            nrows=None if sized else 24,
            leave=False,
            smoothing=0,
            unit=study or "",
            bar_format="{unit} {n_fmt}/{total_fmt} runs [{elapsed}<{remaining}{postfix}] {desc}",
        )
        _Bar.current = None if self._bar.disable else self._bar

    def running(self, count: int) -> None:
        """How many runs go on now."""
        self._bar.set_postfix_str(f"{count} running", refresh=True)

    def finished(self, left: int) -> None:
        """One more is there; `left` have not ended, which a search learns as it goes."""
        self._bar.total = self._bar.n + 1 + left
        self._bar.update(1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        _Bar.current = None


def show(what: str) -> None:
    """Update the bar's text, where there is a bar."""
    if _Bar.current is not None:
        _Bar.current.set_description_str(what, refresh=True)


def line(record: Record) -> str:
    """One finished run in one line."""
    parts = [f"{record.name:<32}", f"{record.outcome:<8}"]
    measured = record.measurements
    if record.outcome is Outcome.OK:
        parts.append(f"score {measured['score']:.4f}")
    if "max_memory_allocated" in measured:
        parts.append(f"peak {gib(measured['max_memory_allocated'])}")
    if "tokens_per_second" in measured:
        parts.append(f"{measured['tokens_per_second']:,.0f} tokens/s")
    if "train_seconds" in measured:
        parts.append(f"{measured['train_seconds']:.1f} s")
    if record.reason:
        parts.append(first_line(record.reason))
    return "  ".join(parts)
