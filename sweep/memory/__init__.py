"""The predicted peak memory of a run, from its config: no weights, no GPU, no download of anything but config.json.

`predict` is the whole interface. It imports nothing heavy in this process: torch runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.memory.prediction import CATEGORIES, Machine, Prediction, Unpredictable

__all__ = ["CATEGORIES", "Machine", "Prediction", "Unpredictable", "predict"]

_WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # so that no library creates a context on a GPU while a run trains there


def predict(
    configs: Sequence[Mapping[str, Any]], machine: Machine, known: dict[str, Prediction | Unpredictable] | None = None
) -> list[Prediction | Unpredictable]:
    """One answer per config, in their order. A fault in a config does not raise: its answer is Unpredictable.

    One call predicts all settings of a study, which takes seconds: they share the process and the model's config, and
    settings that differ by seed or learning rate only are executed once.

    Args:
        configs: resolved plain configs, as `sweep.config.schema.plain_config` returns them.
        machine: the device that the runs would use.
        known: answers of earlier calls, by all that memory depends on. The answers of this call are added to it.
    """
    from sweep.processes import isolated_call

    predict_all = "sweep.memory.predictor:predict_all"
    try:
        answers, found = isolated_call.call(predict_all, list(configs), machine, dict(known or {}), env=_WITHOUT_GPU)
    except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
        return [Unpredictable(reason=f"the predictor itself failed: {error}") for _ in configs]
    if known is not None:
        known.update(found)
    return answers
