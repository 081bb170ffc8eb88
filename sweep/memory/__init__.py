"""Peak memory of a run, predicted from its config: no weights, no GPU, no download of anything but config.json.

`predict` is the whole interface. It imports nothing heavy here: torch runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.memory.prediction import CATEGORIES, Machine, Prediction, Unpredictable

__all__ = ["CATEGORIES", "Machine", "Prediction", "Unpredictable", "predict"]


def predict(
    configs: Sequence[Mapping[str, Any]], machine: Machine, known: dict[str, Prediction | Unpredictable] | None = None
) -> list[Prediction | Unpredictable]:
    """One answer per resolved plain config (what `sweep.config.schema.plain_config` gives), in their order.

    The settings of a study are predicted by one call: they share the process and the building of the model, and equal
    settings (those that differ by seed or learning rate only) are executed once. Takes seconds; a fault in a config
    does not raise, it makes that answer Unpredictable. `known` has the answers of calls before, by what memory depends
    on, and is given those of this one.
    """
    from sweep.processes import isolated_call

    try:
        answers, found = isolated_call.call(
            "sweep.memory.predictor:predict_all", list(configs), machine, dict(known or {})
        )
    except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
        return [Unpredictable(reason=f"the predictor itself failed: {error}") for _ in configs]
    if known is not None:
        known.update(found)
    return answers
