"""The settings of a study of training runs, composed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig

from sweep.config.schema import RunConfig, Study, parse, plain_config
from sweep.core.errors import ConfigError, Fault, UserError
from sweep.core.setting import VARIANT, select, setting_digest, setting_name
from sweep.study.conditions import Setting, name_clashes
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Compose, Params, Space


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """`known` are the settings that were composed before the first job, by their parameters; `first` is the config of
    one. The others are composed when they are asked for."""

    compose: Compose
    space: Space
    first: RunConfig
    known: Mapping[tuple[Any, ...], Setting]

    @classmethod
    def from_space(cls, compose: Compose, found: Enumeration) -> TrainingSettings:
        """Compose and check all settings, or the corners of the space if a sampler proposes the settings. ConfigError
        with the faults of all settings."""
        known: dict[tuple[Any, ...], Setting] = {}
        faults: list[Fault] = []
        for params in found.known():
            key = tuple(params.items())
            try:
                known[key] = known.get(key) or _composed_setting(compose, found.space, params)
            except ConfigError as error:
                faults.extend(error.faults)
        faults.extend(name_clashes(known.items()))
        if faults:
            raise ConfigError(faults)
        if not known:
            raise UserError("the study has no setting: name at least one value for each swept key")
        first = next(iter(known.values())).config
        if first.study.name is None:
            raise ConfigError([Fault("study.name", "null", "a study needs a name")])
        return cls(compose=compose, space=found.space, first=first, known=known)

    @property
    def study(self) -> Study:
        return self.first.study

    def setting_of(self, params: Params) -> Setting:
        return self.known.get(tuple(params.items())) or _composed_setting(self.compose, self.space, params)

    def cautions(self) -> list[str]:
        """What makes a comparison of the settings unfair."""
        swept = {key.partition(".")[2] for key in self.space.dimensions if key.startswith(f"{VARIANT}.")}
        found = (caution for setting in self.known.values() for caution in setting.config.variant.cautions(swept))
        return list(dict.fromkeys(found))

    def own_of_each_variant(self) -> list[Params]:
        """Each variant with its own values, if the space contains them."""
        choices = self.space.dimensions[VARIANT].values or () if VARIANT in self.space.dimensions else None
        settings = []
        for params in [{}] if choices is None else [{VARIANT: choice} for choice in choices]:
            chosen = [f"{key}={choice}" for key, choice in params.items()]
            plain = _composed_plain(self.compose, [*self.space.fixed.values(), *chosen])
            for key in self.space.in_order_of_dependence():
                if key not in params and self.space.exists(key, params):
                    own = select(plain, key.lstrip("+"))
                    if self.space.dimensions[key].contains(own):
                        params[key] = own
            settings.append(params)
        return settings


def _composed_setting(compose: Compose, space: Space, params: Params) -> Setting:
    plain = _composed_plain(compose, space.overrides(params))
    swept = space.swept_in(params)
    return Setting(setting_name(plain, swept), setting_digest(plain, swept), parse(plain), plain)


def _composed_plain(compose: Compose, overrides: list[str]) -> dict[str, Any]:
    composed = compose(overrides)
    HydraConfig.instance().set_config(composed)  # for Hydra's resolvers
    return plain_config(composed)
