"""The console output of a study: one line per finished run, and on a terminal a progress bar below."""

from __future__ import annotations

import logging
import os
import sys

from tqdm import tqdm

from sweep.core.errors import first_line
from sweep.core.formatting import gib
from sweep.core.measurements import PAGED_BYTES, PEAK_MEMORY_BYTES
from sweep.core.record import Outcome, Record


class ConsoleHandler(logging.StreamHandler):
    """Prints log lines above the progress bar."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        if Progress.current is None:
            super().emit(record)
        else:
            tqdm.write(self.format(record), file=sys.stdout)


class Progress:
    """A progress bar over the runs of a study, with the phase of one run: `mine 3/8 runs [01:10<01:57, 2 running]
    lora_r8 · seed 0: training 120/300`. Nothing is drawn if standard error is not a terminal."""

    current: tqdm | None = None

    def __init__(self, total: int, study: str | None = None):
        drawn = sys.stderr.isatty()
        sized = drawn and os.get_terminal_size(sys.stderr.fileno()).columns > 0  # some terminals report 0
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
        Progress.current = None if self._bar.disable else self._bar

    def running(self, count: int) -> None:
        """Show how many runs are running."""
        self._bar.set_postfix_str(f"{count} running", refresh=True)

    def finished(self, left: int) -> None:
        """Count one more finished run. `left` runs have not ended; a search adds runs during the study."""
        self._bar.total = self._bar.n + 1 + left
        self._bar.update(1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        Progress.current = None


def show(text: str) -> None:
    """Update the text of the progress bar, if there is one."""
    if Progress.current is not None:
        Progress.current.set_description_str(text, refresh=True)


def line(record: Record) -> str:
    """One finished run as one line."""
    parts = [f"{record.name:<32}", f"{record.outcome:<8}"]
    measured = record.measurements
    if record.outcome is Outcome.OK:
        parts.append(f"score {measured['score']:.4f}")
    if PEAK_MEMORY_BYTES in measured:
        paged = measured.get(PAGED_BYTES)
        parts.append(f"peak {gib(measured[PEAK_MEMORY_BYTES])}" + (f" ({gib(paged)} paged)" if paged else ""))
    if "tokens_per_second" in measured:
        parts.append(f"{measured['tokens_per_second']:,.0f} tokens/s")
    if "train_seconds" in measured:
        parts.append(f"{measured['train_seconds']:.1f} s")
    if record.reason:
        parts.append(first_line(record.reason))
    return "  ".join(parts)
