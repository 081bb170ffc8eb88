"""The settings of a study, from the command line and from `hydra.sweeper`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from sweep.config.hydra_options import SweeperOptions
from sweep.core.errors import UserError
from sweep.study.search import samplers
from sweep.study.search.space import Params, Space

if TYPE_CHECKING:
    from optuna.trial import Trial

_SMALL = 256  # settings: a finite space up to this size is run whole, if the user gives no number of trials


class Enumeration(NamedTuple):
    """What a study searches. `settings` is the list of all settings, or None if a sampler proposes them. `extend` is
    the user's function that suggests further keys of a trial."""

    space: Space
    settings: list[Params] | None
    extend: Callable[[Trial], None] | None = None

    @property
    def searching(self) -> bool:
        """Whether a sampler proposes the settings."""
        return self.settings is None

    def known(self) -> list[Params]:
        """The settings that exist before the first trial: all of them, or the corners of the space where a sampler
        proposes them or none is to run."""
        return self.settings or list(self.space.corners())


def enumerate_settings(
    loader: ConfigLoader,
    config: DictConfig,
    options: SweeperOptions,
    arguments: Sequence[str],
    *,
    seed_is_replicate: bool,
) -> Enumeration:
    """List the settings of a study, or raise UserError. `config` is the multirun's own, `options` are those of
    `hydra.sweeper`, and `seed` is searched unless `seed_is_replicate`."""
    params = options.params or options.search_space or {}
    conditional_on = options.conditional_on or {}
    space = Space.of(params, arguments, loader, seed_is_replicate=seed_is_replicate, conditional_on=conditional_on)
    groups = [key for key in space.dimensions if loader.get_group_options(key)]
    space = space.conditioned(lambda *key: _has_key(loader, config, space.fixed, *key), groups)
    extend = _extension(config, options.custom_search_space)
    return Enumeration(space, _all_settings(space, options, extend is not None), extend)


def _has_key(
    loader: ConfigLoader, config: DictConfig, fixed: Mapping[str, str], group: str, choice: str, key: str
) -> bool:
    """Whether the config has `key` if `choice` is the preset of `group`."""
    others = [text for name, text in fixed.items() if not name.startswith(f"{group}.")]
    composed = loader.load_sweep_config(config, [*others, f"{group}={choice}"])
    HydraConfig.instance().set_config(composed)  # for Hydra's resolvers
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(composed, parent, throw_on_resolution_failure=False)
    return isinstance(node, DictConfig) and last in node


def _extension(config: DictConfig, name: str | None) -> Callable[[Trial], None] | None:
    if not name:
        return None
    try:
        return functools.partial(get_method(name), config)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"hydra.sweeper.custom_search_space = {name} cannot be imported: {error}") from error


def _all_settings(space: Space, options: SweeperOptions, extended: bool) -> list[Params] | None:
    kind, limit = samplers.kind_of(options.sampler), options.n_trials
    if kind == samplers.GRID:
        intervals = [key for key, dimension in space.dimensions.items() if dimension.values is None]
        if intervals:
            raise UserError(
                f"hydra.sweeper.sampler=grid needs a list of values, but {', '.join(intervals)} is an interval or "
                "a range of more than 100000 values; write choice(…) or a shorter range(…), or choose another sampler"
            )
        settings = list(space.settings())
        return settings if limit is None else settings[:limit]
    if kind == samplers.AUTO and not extended and space.size_at_most(_SMALL if limit is None else limit):
        return list(space.settings())
    return None
