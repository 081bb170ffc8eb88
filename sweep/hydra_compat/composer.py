"""Hydra's composition of a config, without a launch."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sweep.core import familiar_names, program
from sweep.core.errors import ConfigError, Fault, alternatives, first_line
from sweep.core.overrides import shell_override, yaml_value

# What Hydra and OmegaConf raise while they compose: their own errors, and errors of Python if an override has an
# unexpected type (`model=0`).
_PLAIN = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
NOT_COMPOSED = (HydraException, OmegaConfBaseException, YAMLError, *_PLAIN)


def _one_experiment() -> str:
    return (
        "names several experiments. Each is a study with its own data and variants. Run one after the other: "
        f"for e in a b; do {program.command('sweep')} -m experiment=$e; done"
    )


def command_line() -> argparse.Namespace:
    """The arguments of this process, read by Hydra's own parser, which has no public name."""
    return get_args_parser().parse_known_args()[0]


class Composer:
    """Composes configs as Hydra's command line does, inside a `with` block. `extra` is the folder of `--config-dir`:
    ConfigError if it is not one."""

    def __init__(self, conf: Path, extra: str | None, config_name: str):
        self._config_name = config_name
        self._folders = [conf]
        search_path = create_config_search_path(str(conf.absolute()))
        if extra is not None:
            folder = Path(extra).absolute()
            if not folder.is_dir():
                raise ConfigError([Fault("--config-dir", extra, "is not a folder")])
            self._folders.append(folder)
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        self._search_path = search_path

    def __enter__(self) -> Composer:
        self._hydra = Hydra.create_main_hydra2(task_name="sweep", config_search_path=self._search_path)
        self._parser = OverridesParser.create(config_loader=self._hydra.config_loader)
        return self

    def __exit__(self, *exception: Any) -> None:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None

    def compose(self, overrides: Sequence[str], multirun: bool) -> DictConfig:
        """The composed config with Hydra's part, which is set as the current one for Hydra's resolvers."""
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        composed = self._hydra.compose_config(
            config_name=self._config_name, overrides=list(overrides), run_mode=mode, with_log_configuration=False
        )
        HydraConfig.instance().set_config(composed)
        return composed

    @property
    def loader(self) -> ConfigLoader:
        return self._hydra.config_loader

    def print_help(self, args: argparse.Namespace) -> None:
        """Print what Hydra's `--help` prints, with the presets read from the folders: Hydra copies all structured
        configs for each of 130 groups, which takes 2 seconds."""
        self._hydra.format_config_groups = self._groups
        try:
            self._hydra.app_help(config_name=self._config_name, args_parser=get_args_parser(), args=args)
        except NOT_COMPOSED as error:
            raise ConfigError([composition_fault(error, args.overrides, None)]) from error

    def _groups(self, is_shown: Callable[[str], bool]) -> str:
        presets: dict[str, set[str]] = defaultdict(set)
        for folder in self._folders:
            for file in folder.rglob("*/*.yaml"):
                presets[file.parent.relative_to(folder).as_posix()].add(file.stem)
        return "".join(f"{name}: {', '.join(sorted(presets[name]))}\n" for name in sorted(presets) if is_shown(name))

    def mode(self, overrides: Sequence[Override]) -> str | None:
        asked = [o for o in overrides if o.key_or_group == "hydra.mode"]
        return str(asked[-1].value()) if asked else None

    def usable(self, raw: Sequence[str]) -> tuple[list[Override], list[Fault]]:
        """The overrides that parse and compose, and a fault for each of the others."""
        parsed: list[Override] = []
        faults: list[Fault] = []
        for text in raw:
            try:
                parsed.append(self.parse(text))
            except NOT_COMPOSED as error:
                faults.append(Fault(text, "", f"is not an override: {first_line(error)}{_quoted(text)}"))
        for override in parsed:
            if override.key_or_group == "experiment" and override.is_sweep_override():
                raise ConfigError([Fault("experiment", override_text(override).partition("=")[2], _one_experiment())])
        fixed = [o for o in parsed if not o.is_sweep_override()]
        try:
            self.compose([override_text(o) for o in fixed], multirun=False)
        except NOT_COMPOSED:
            good, bad = self._one_by_one(fixed)
            return [o for o in parsed if o.is_sweep_override() or o in good], [*faults, *bad]
        return parsed, faults

    def _one_by_one(self, fixed: Sequence[Override]) -> tuple[list[Override], list[Fault]]:
        """The overrides that compose, and the faults of the others. They are added one at a time, choices of presets
        before keys in presets."""
        good: list[Override] = []
        faults: list[Fault] = []
        base = None
        try:
            base = self.compose([], multirun=False)
        except NOT_COMPOSED as error:
            faults.append(composition_fault(error, [], None))
        for override in sorted(fixed, key=lambda o: "." in o.key_or_group):
            try:
                self.compose([override_text(o) for o in [*good, override]], multirun=False)
                good.append(override)
            except NOT_COMPOSED as error:
                faults.append(composition_fault(error, [override_text(override)], base))
        return good, faults

    def params(self, overrides: Sequence[str]) -> dict[str, str]:
        """The parameters that the config itself sweeps, without the command line."""
        composed = self.compose(overrides, multirun=True)
        params = OmegaConf.select(composed, "hydra.sweeper.params")
        return {} if params is None else {str(k): yaml_value(v) for k, v in OmegaConf.to_container(params).items()}

    def parse(self, text: str) -> Override:
        return self._parser.parse_overrides([text])[0]  # unlike parse_override, it resolves glob over the presets


def composition_fault(error: Exception, overrides: Sequence[str], base: DictConfig | None) -> Fault:
    """Hydra's error about an override as a fault, with the alternatives that Hydra does not name."""
    message = str(error)
    named = re.search(r"Could not [^']*'([^'/]+)'", message)
    given = {text.partition("=")[0].lstrip("+~"): text for text in overrides}
    last = overrides[-1] if overrides else "config"
    text = given.get(named[1].lstrip("+~"), named[1]) if named else last
    key, _, value = text.partition("=")
    if "Ambiguous value" in message:
        return Fault(key, value, f"has several values, which are a study: {program.command('sweep')} -m …")
    wrong = re.search(r"Key '([^']+)' is not in struct", f"{message}\n{error.__cause__}")
    if wrong and base is not None:
        parent = key.lstrip("+~").rpartition(".")[0]
        node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
        known = [str(k) for k in node if k not in ("hydra", "_target_")] if isinstance(node, DictConfig) else []
        if key == "model.path":
            return Fault(key, value, f"needs the preset of checkpoints: model=pretrained model.path={value}")
        line = familiar_names.meant(key.lstrip("+~"), value)
        return Fault(key, value, "unknown key; " + (f"write {line}" if line else alternatives(wrong[1], known)))
    missing = re.search(r"Could not find '([^']+)'", message)
    if missing:
        group, _, name = missing[1].rpartition("/")
        chosen = [text for key, text in given.items() if missing[1].startswith(f"{key.partition('@')[0]}/")]
        key, _, value = (chosen or [f"{group or key}={name}"])[-1].partition("=")
        options = dict.fromkeys(line.strip() for line in message.partition("Available options")[2].splitlines()[1:])
        known = [option for option in options if option and ":" not in option and "provider" not in option]
        line = familiar_names.meant(key.lstrip("+~"), value) if key in ("model", "data@task.data") else None
        more = f". For your own: {line}" if line and not line.startswith(key + "=" + value) else ""
        return Fault(key, value, f"no such preset; {alternatives(name, known)}{more}")
    line = familiar_names.meant(key.lstrip("+~"), value) if named else None
    return Fault(key, value, f"unknown key; write {line}" if line else first_line(error))


def override_text(override: Override) -> str:
    return str(override.input_line)


def _quoted(text: str) -> str:
    """How to write an override whose value Hydra does not read without quotes."""
    key, equals, value = text.partition("=")
    is_grammar = re.match(r"\s*([\[{]|\w+\()", value)  # a list, a mapping or a function with a fault in it
    if not equals or is_grammar or not re.fullmatch(r"[+~]*[\w./@-]+", key, re.ASCII):
        return ""
    return f". Quote it for the shell and for Hydra: {shell_override(key, value)}"
