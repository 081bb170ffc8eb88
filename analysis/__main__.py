"""`python -m analysis study=NAME`: load ▸ comparable? ▸ decide ▸ charts ▸ report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from sweep import cli, preflight
from sweep.errors import Fault, UserError

CONF = Path(__file__).resolve().parent.parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analysis")
def application(composed: DictConfig) -> None:
    from analysis.answer import answer

    try:
        print(answer(OmegaConf.to_container(composed, resolve=True)))
    except UserError as error:
        cli.stop(error)


def examine(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """What is wrong with the options, before anything is read."""
    if multirun:
        yield Fault("-m", "", "has no meaning here: one study is analysed at a time")
    if OmegaConf.is_missing(composed, "study"):
        yield Fault("study", "", "is missing; name one: python -m analysis study=quickstart")
    else:
        yield from preflight.output_fault("out", str(composed.out))
    threshold, margin = composed.threshold, composed.margin
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        yield Fault("threshold", str(threshold), "must be a number above 0 and at most 1: a share of the best score")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float) or margin < 0):
        yield Fault("margin", str(margin), "must be null or a number of at least 0: a distance from the best score")
    if not isinstance(composed.memory_metric, str):
        yield Fault("memory_metric", str(composed.memory_metric), "must name a measurement: max_memory_allocated")
    yield from preflight.store_fault("tracking.uri", str(composed.tracking.uri))


def main() -> None:
    cli.guarded(application, CONF, "analysis", examine)


if __name__ == "__main__":
    main()
