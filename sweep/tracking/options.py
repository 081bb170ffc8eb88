"""Where runs are kept: the group `tracking` of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, MinLen


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are kept. The folder of artifacts counts for a new SQLite store only; a server has its own.

    What a run trained is kept with it where it takes at most `max_saved_weights_bytes`: an adapter does, the whole of a
    large model does not. 0 keeps nothing, and then nothing can be exported.
    """

    uri: str
    artifacts: str
    experiment: Annotated[str, MinLen(1)]
    max_saved_weights_bytes: Annotated[int, Ge(0)] = 2**29
