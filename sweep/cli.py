"""The command line around Hydra's: all faults of a config at once, in words, before anything heavy or written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

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

from sweep import redact
from sweep.errors import ConfigError, Fault, UserError, alternatives, first_line
from sweep.quick_hydra import quicken

# What Hydra and OmegaConf raise while they compose: their own errors, and plain ones where an override is of a kind
# that they did not expect (`model=0`).
_PLAIN = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
NOT_COMPOSED = (HydraException, OmegaConfBaseException, YAMLError, *_PLAIN)
FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = 130  # the shell's code for Ctrl-C
_ONE_EXPERIMENT = (
    "names several: each is a study of its own, with its own data and variants. One after the other: "
    "for e in a b; do python -m sweep -m experiment=$e; done"
)


Examine = Callable[[DictConfig, bool], Iterable[Fault]]  # a composed config, and whether for a multirun → its faults


def guarded(application: Callable[[], Any], conf: Path, config_name: str, examine: Examine) -> None:
    """Check the config that the command line asks for, then let Hydra run the application.

    Help, `--info` and completion are Hydra's own and are not checked; `--cfg` shows the config first, since its faults
    are found by looking at it.
    """
    quicken()
    args, _ = get_args_parser().parse_known_args()
    looks_only = args.help or args.hydra_help or args.info or args.shell_completion
    unchecked = looks_only or args.experimental_rerun
    folder = conf if args.config_path is None else Path(args.config_path)
    try:
        if args.multirun and (args.cfg or args.info):
            raise ConfigError([Fault("--multirun", "", "cannot go with --cfg or --info, which look at one config")])
        if not (unchecked or args.cfg):
            check(folder, args, config_name, examine)
        application()
        if args.cfg and not unchecked:
            check(folder, args, config_name, examine)
    except UserError as error:
        stop(error)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where it stopped.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def stop(error: UserError) -> NoReturn:
    """Say what is wrong, and leave. With HYDRA_FULL_ERROR=1, the traceback too."""
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    print(redact.text(str(error)), file=sys.stderr)
    raise SystemExit(error.exit_code)


def check(conf: Path, args: Any, config_name: str, examine: Examine) -> None:
    """Compose and check what would run.

    Raises:
        ConfigError: with all faults of the overrides, the values, the folders and the tracking store.
    """
    with Composer(conf, args.config_dir, args.config_name or config_name) as composer:
        overrides, faults = composer.usable(args.overrides)
        multirun = args.multirun or composer.mode(overrides) == "MULTIRUN"
        try:
            cells = list(_cells(overrides, composer, multirun))
        except NOT_COMPOSED as error:
            cells, faults = [], [*faults, _composition_fault(error, [], None)]
        for cell in cells:
            try:
                composed = composer.compose(cell, multirun)
            except NOT_COMPOSED as error:
                faults.append(_composition_fault(error, cell, None))
                continue
            try:
                faults.extend(examine(composed, multirun))
            except NOT_COMPOSED as error:  # a key that is asked for was deleted
                faults.append(Fault(str(getattr(error, "full_key", None) or "config"), "", first_line(error)))
    if faults:
        raise ConfigError(faults)


class Composer:
    """Hydra's own composition, with its own search path, without its launch."""

    def __init__(self, conf: Path, extra: str | None, config_name: str):
        quicken()
        self._config_name = config_name
        search_path = create_config_search_path(str(conf.absolute()))
        if extra is not None:
            folder = Path(extra).absolute()
            if not folder.is_dir():
                raise ConfigError([Fault("--config-dir", extra, "is not a folder")])
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
        """The composed config, Hydra's part included and in reach of its resolvers."""
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        composed = self._hydra.compose_config(
            config_name=self._config_name, overrides=list(overrides), run_mode=mode, with_log_configuration=False
        )
        HydraConfig.instance().set_config(composed)
        return composed

    @property
    def loader(self) -> ConfigLoader:
        return self._hydra.config_loader

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
                faults.append(Fault(text, "", f"is not an override: {first_line(error)}"))
        for override in parsed:
            if override.key_or_group == "experiment" and override.is_sweep_override():
                raise ConfigError([Fault("experiment", _text(override).partition("=")[2], _ONE_EXPERIMENT)])
        fixed = [o for o in parsed if not o.is_sweep_override()]
        try:
            self.compose([_text(o) for o in fixed], multirun=False)
        except NOT_COMPOSED:
            good, told = self._one_by_one(fixed)
            return [o for o in parsed if o.is_sweep_override() or o in good], [*faults, *told]
        return parsed, faults

    def _one_by_one(self, fixed: Sequence[Override]) -> tuple[list[Override], list[Fault]]:
        """Which overrides compose, added one at a time: choices of presets before keys in them."""
        good: list[Override] = []
        faults: list[Fault] = []
        base = self._base(faults)
        for override in sorted(fixed, key=lambda o: "." in o.key_or_group):
            try:
                self.compose([_text(o) for o in [*good, override]], multirun=False)
                good.append(override)
            except NOT_COMPOSED as error:
                faults.append(_composition_fault(error, [_text(override)], base))
        return good, faults

    def _base(self, faults: list[Fault]) -> DictConfig | None:
        try:
            return self.compose([], multirun=False)
        except NOT_COMPOSED as error:
            faults.append(_composition_fault(error, [], None))
            return None

    def params(self, overrides: Sequence[str]) -> dict[str, str]:
        """What the sweeper sweeps without being told on the command line."""
        composed = self.compose(overrides, multirun=True)
        params = OmegaConf.select(composed, "hydra.sweeper.params")
        return {} if params is None else {str(k): str(v) for k, v in OmegaConf.to_container(params).items()}

    def parse(self, text: str) -> Override:
        return self._parser.parse_overrides([text])[0]  # unlike parse_override, it lets glob look at the presets


def _cells(overrides: Sequence[Override], composer: Composer, multirun: bool) -> Iterator[list[str]]:
    """Configs to check: the one that runs; in a multirun, each value of each swept key once, the others at their
    first. The sweeper checks all combinations."""
    if not multirun:
        yield [_text(o) for o in overrides]
        return
    fixed = [_text(o) for o in overrides if not o.is_sweep_override()]
    given = {o.key_or_group for o in overrides}
    params = composer.params(fixed)
    swept = [o for o in overrides if o.is_sweep_override()]
    for key, value in params.items():
        if key not in given:
            override = composer.parse(f"{key}={value}")
            if override.is_sweep_override():
                swept.append(override)
            else:
                fixed.append(_text(override))
    inside = {o.get_key_element(): g for o in swept for g in swept if o.key_or_group.startswith(f"{g.key_or_group}.")}
    apart = [o for o in swept if o.get_key_element() not in inside]
    choices = [_values(o) for o in apart]
    firsts = [values[0] for values in choices]
    yield fixed + firsts
    for position, values in enumerate(choices):
        for value in values[1:]:
            yield fixed + [value if i == position else first for i, first in enumerate(firsts)]
    for override in swept:
        if override.get_key_element() in inside:
            yield from _cells_inside(override, inside[override.get_key_element()], fixed, composer)


def _cells_inside(override: Override, group: Override, fixed: list[str], composer: Composer) -> Iterator[list[str]]:
    """The values of a key inside a swept group, under the first of its choices that has the key: `variant.r` exists for
    some variants only, and is searched for those only."""
    values, choices = _values(override), _values(group)
    home = choices[0]
    for choice in choices:
        try:
            composer.compose([*fixed, choice, values[0]], multirun=True)
        except NOT_COMPOSED:
            continue
        home = choice
        break
    for value in values:
        yield [*fixed, home, value]


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if override.is_discrete_sweep():
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if not values:
            raise ValueError(f"{override.input_line} stands for no value; name at least one")
        return values
    interval = override.value()
    return [f"{key}={bound}" for bound in (interval.start, interval.end)]


def _composition_fault(error: Exception, overrides: Sequence[str], base: DictConfig | None) -> Fault:
    """Hydra's complaint about an override, with the alternatives that it leaves out."""
    key, _, value = (overrides[-1] if overrides else "config").partition("=")
    message = str(error)
    wrong = re.search(r"Key '([^']+)' is not in struct", f"{message}\n{error.__cause__}")
    if wrong and base is not None:
        parent = key.lstrip("+~").rpartition(".")[0]
        node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
        known = [str(k) for k in node if k not in ("hydra", "_target_")] if isinstance(node, DictConfig) else []
        return Fault(key, value, f"unknown key; {alternatives(wrong[1], known)}")
    missing = re.search(r"Could not find '([^']+)'", message)
    if missing:
        group, _, name = missing[1].rpartition("/")
        options = [line.strip() for line in message.partition("Available options")[2].splitlines()[1:]]
        known = [
            option for option in dict.fromkeys(options) if option and ":" not in option and "provider" not in option
        ]
        return Fault(group or key, name, f"no such preset; {alternatives(name, known)}")
    return Fault(key, value, first_line(error))


def _text(override: Override) -> str:
    return str(override.input_line)
