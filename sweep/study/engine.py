"""One study: which runs are missing, in which order they are launched, and what Optuna is told about them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sweep import progress, provenance, redact
from sweep.config import RunConfig, parse, plain_config
from sweep.errors import ConfigError, Fault, UserError, first_line
from sweep.launch import isolation
from sweep.record import Outcome, Record
from sweep.study.setting import setting_digest, setting_name
from sweep.study.space import Space

log = logging.getLogger(__name__)


@dataclass
class Setting:
    """One setting of the study, its replicates, and those of them that are done."""

    choices: Mapping[str, str]
    name: str
    digest: str
    seeds: tuple[int, ...]
    config: RunConfig
    plain: Mapping[str, Any]
    done: dict[int, Record] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        return [seed for seed in self.seeds if seed not in self.done]


class Engine:
    """Launches what a study lacks through Hydra's launcher, and tells Optuna.

    MLflow is the ledger of what is done: a run deleted there is run again, whatever Optuna remembers.
    """

    def __init__(
        self, context: HydraContext, task_function: TaskFunction, config: DictConfig, options: Mapping[str, Any]
    ):
        self._context = context
        self._task_function = task_function
        self._config = config
        self._options = options

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run the study that `arguments` describe, or what is missing of it.

        Raises:
            ConfigError: with the faults of all its settings, before anything is launched.
            UserError: where the study exists under other conditions, is being run already, or its store fails.
        """
        isolation.warm_up()
        space = Space.of(self._options.get("params") or {}, arguments, self._context.config_loader)
        settings = self._settings(space)
        HydraConfig.instance().set_config(self._config)
        folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                self._save_command(folder, arguments)
                self._run(space, settings, folder)
        except Timeout:
            raise UserError(
                f"study {settings[0].config.study.name} is being run by another process on this machine; wait for it, "
                "or choose another study.name"
            ) from None

    def _settings(self, space: Space) -> list[Setting]:
        """Compose and check every setting; all faults are told together."""
        settings, faults = [], []
        for choices in space.settings():
            try:
                composed = self._compose(space.overrides(choices))
                plain = plain_config(composed)
                config = parse(plain)
            except ConfigError as error:
                faults.extend(error.faults)
                continue
            settings.append(
                Setting(
                    choices=choices,
                    name=setting_name(plain, space.swept),
                    digest=setting_digest(plain, space.swept),
                    seeds=space.seeds or (config.seed,),
                    config=config,
                    plain=plain,
                )
            )
        faults.extend(_name_clashes(settings))
        if faults:
            raise ConfigError(faults)
        if not settings:
            raise UserError("the study has no setting: name at least one value for each swept key")
        return settings

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        composed = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        HydraConfig.instance().set_config(composed)  # for the resolvers of `${hydra:…}`
        return composed

    def _run(self, space: Space, settings: list[Setting], folder: Path) -> None:
        # MLflow and Optuna take seconds to import: while the fork server is at its own imports.
        from sweep.launch.supervise import conditions_of, store
        from sweep.study.oracle import Oracle

        first = settings[0]
        if first.config.study.name is None:
            raise ConfigError([Fault("study.name", "null", "a study needs a name")])
        name = first.config.study.name
        runs = store(first.config.tracking)
        bar = progress.Progress(sum(len(setting.seeds) for setting in settings))
        try:
            # Masked as they are kept, or a masked value would never equal itself.
            conditions = [redact.tree(conditions_of(s.config, s.plain, space.swept)) for s in settings]
            _same(conditions, settings)
            oracle = Oracle(self._options, first.config, name, space.choices)
            parent = runs.find_study(name)
            if parent is None:
                tags = {"fingerprint": provenance.fingerprint(conditions[0]), "command": provenance.command()}
                parent = runs.create_study(name, conditions[0], tags)
            else:
                _same_study(name, runs.study_conditions(parent), conditions[0])
            self._take_done(settings, runs.adopt(parent.info.run_id))
            bar.start(sum(len(setting.done) for setting in settings))
            runs.reopen_study(parent.info.run_id)
            try:
                self._launch(space, settings, folder, oracle, bar)
            except BaseException:
                runs.close_study(parent.info.run_id, "KILLED")
                raise
            runs.close_study(parent.info.run_id, "FINISHED")
        finally:
            bar.close()
        _require_complete(settings)

    @staticmethod
    def _take_done(settings: list[Setting], records: Sequence[Record]) -> None:
        by_name = {setting.name: setting for setting in settings}
        for record in records:
            setting = by_name.get(record.setting)
            if setting is None:
                continue
            if not record.outcome.final:
                continue
            if record.facts.get("setting_digest") != setting.digest:
                raise UserError(
                    f"setting {setting.name} was run with other values of its variant in this study; a study keeps one "
                    "meaning per name. Choose another study.name, or another variant.name"
                )
            if record.seed in setting.seeds:
                setting.done[record.seed] = record

    def _launch(self, space: Space, settings: list[Setting], folder: Path, oracle: Any, bar: progress.Progress) -> None:
        """First every setting with its first seed, then the second: a study that is stopped half-way can be read."""
        todo = [setting for setting in settings if setting.missing]
        done = sum(len(setting.done) for setting in settings)
        total = sum(len(setting.seeds) for setting in settings)
        if not todo:
            log.info("All %d runs of study %s are there already.", total, settings[0].config.study.name)
            return
        log.info("%d of %d runs are there; launching %d.", done, total, total - done)
        trials = {setting.name: oracle.ask(setting.choices, setting.name) for setting in todo}
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task_function, config=self._config
        )
        replicates = max(len(setting.missing) for setting in todo)
        jobs = [(s, s.missing[i]) for i in range(replicates) for s in todo if i < len(s.missing)]
        size = max(1, int(self._options.get("n_jobs") or 1))
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            overrides = [
                [
                    *space.overrides(setting.choices),
                    f"seed={seed}",
                    f"study.trial={trials[setting.name]}",
                    f"study.swept=[{','.join(space.swept)}]",
                ]
                for setting, seed in batch
            ]
            returns = launcher.launch(overrides, initial_job_idx=_next_index(folder))
            for (setting, seed), returned in zip(batch, returns, strict=True):
                setting.done[seed] = _record_of(returned)
                bar.finished()
                if not setting.missing:
                    oracle.tell(trials[setting.name], list(setting.done.values()))

    def _save_command(self, folder: Path, arguments: Sequence[str]) -> None:
        content = {
            "command": provenance.command(),
            "arguments": list(arguments),
            "hydra": OmegaConf.to_container(self._config.hydra, resolve=False),
        }
        (folder / "multirun.yaml").write_text(redact.yaml(content))


def _name_clashes(settings: Sequence[Setting]) -> Iterator[Fault]:
    """Two settings under one name would be taken for one."""
    by_name: dict[str, Setting] = {}
    for setting in settings:
        other = by_name.setdefault(setting.name, setting)
        if other is not setting:
            values = " and ".join(", ".join(f"{k}={v}" for k, v in s.choices.items()) for s in (other, setting))
            yield Fault("variant.name", setting.name, f"stands for two settings ({values}); give each variant its own")


def _same(conditions: Sequence[Mapping[str, str]], settings: Sequence[Setting]) -> None:
    """A swept preset may drag other keys along; settings then compare under different conditions."""
    for other, setting in zip(conditions[1:], settings[1:], strict=True):
        differing = _differing(conditions[0], other)
        if differing:
            raise ConfigError(
                Fault(key, f"{old} or {new}", f"differs between {settings[0].name} and {setting.name}: fix it for all")
                for key, old, new in differing
            )


def _same_study(name: str, begun: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = _differing(begun, now)
    if differing:
        lines = "\n".join(f"  {key}: {old} → {new}" for key, old, new in differing)
        raise UserError(
            f"study {name} was begun under other conditions, and its runs would not compare:\n{lines}\n"
            "Give this one a name of its own (study.name=…), or go back to the old values."
        )


def _require_complete(settings: Sequence[Setting]) -> None:
    """Raises UserError where runs ended without saying anything of their setting. Out of memory and divergence are
    results."""
    lost = [record for setting in settings for record in setting.done.values() if not record.outcome.final]
    if lost:
        lines = "\n".join(f"  {record.name}: {record.outcome}: {first_line(record.reason)}" for record in lost)
        raise UserError(
            f"{len(lost)} of the study's runs ended without a result:\n{lines}\n"
            "Mend the cause and give the same command again: it repeats these and no others."
        )
    if not any(record.outcome is Outcome.OK for setting in settings for record in setting.done.values()):
        raise UserError(
            "no run of this study was ok, so that it has no answer. Out of memory: smaller micro-batches, shorter "
            "sequences, activation checkpointing or QLoRA. Diverged: a lower learning rate."
        )


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str, str]]:
    keys = sorted(old.keys() | new.keys())
    return [(k, old.get(k, "—"), new.get(k, "—")) for k in keys if old.get(k) != new.get(k)]


def _record_of(returned: JobReturn) -> Record:
    """The run's Record. An exception here is not the run's, which has an outcome: it is the store's, or ours."""
    if returned.status == JobStatus.COMPLETED and isinstance(returned.return_value, Record):
        return returned.return_value
    value = returned._return_value  # the property would print all overrides, credentials among them
    if isinstance(value, BaseException):
        raise value
    raise UserError(
        f"a run returned {type(value).__name__} instead of a Record: this sweeper runs `python -m sweep`, not other "
        "applications"
    )


def _next_index(folder: Path) -> int:
    """One more than the highest job number there, so that going on never writes into an old folder."""
    taken = [int(path.name) for path in folder.iterdir() if re.fullmatch(r"\d+", path.name)]
    return max(taken, default=-1) + 1
