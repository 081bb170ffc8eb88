"""`python -m sweep.plan`: the predicted peak memory of every setting of a study. No GPU, no weights, nothing launched.

Takes the overrides of `python -m sweep`, and options of its own as `plan.KEY=VALUE` (conf/plan.yaml). This command
draws with a chart of `analysis`, which no other module of this package imports.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.cli import app, plan_table, validation
from sweep.cli.validation import validate
from sweep.config.hydra_options import sweeper_options
from sweep.config.schema import plain_config
from sweep.core import program, redaction
from sweep.core.errors import ConfigError, Fault, UserError, alternatives, first_line
from sweep.core.paths import CONF
from sweep.core.setting import setting_name, varied_keys
from sweep.diagnostics.mitigations import Mitigation, until_it_fits
from sweep.hydra_compat import composer
from sweep.hydra_compat.composer import Composer
from sweep.launch import device_leases
from sweep.launch.hydra_task import task
from sweep.memory import Machine, Prediction, Unpredictable, gpu_catalog, predict
from sweep.memory.closed_form.estimate import predict_by_formula
from sweep.runtime import gpus

if TYPE_CHECKING:
    from sweep.memory.gpu_catalog import Card
    from sweep.runtime.gpus import Gpu

PREFIX = "plan."
DEFAULT_CAPABILITY = (8, 0)
HELP = """PLAN [-m] [--config-dir FOLDER] [overrides of SWEEP] [plan.KEY=VALUE]

The predicted peak memory of every setting, what each byte is for, and which cards have room. Nothing is launched.

  PLAN -m experiment=llama3_qlora
  PLAN -m experiment=llama3_qlora plan.gpu_memory_gb=24 plan.json=true

Options, with their defaults:
"""


def main() -> None:
    args = composer.command_line()
    if args.help:
        text = HELP.replace("PLAN", program.command("plan")).replace("SWEEP", program.command("sweep"))
        print(text + (CONF / "plan.yaml").read_text())
        return
    own = [text for text in args.overrides if text.startswith(PREFIX)]
    args.overrides = [text for text in args.overrides if not text.startswith(PREFIX)]
    try:
        options = _options(own)
        validation.check(CONF, args, "config", validate)
        print(plan(args, options))
    except UserError as error:
        app.exit_with_error(error)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        raise SystemExit(app.INTERRUPTED) from None


def plan(args: Any, options: Mapping[str, Any]) -> str:
    """Write the files, and return the table and its explanations."""
    found, study, corners = settings(args)
    here = next(iter(device_leases.of_one_kind(gpus.visible())), None)
    machine = _machine(options, here)
    answers = predict([plain for _, plain in found], machine)
    predicted = [(name, answer) for (name, _), answer in zip(found, answers, strict=True)]
    on_cards: list[Card] = []
    steps: dict[str, list[Mitigation]] = {}
    remedies: list[str] = []
    if machine.kind == "cuda":
        own = gpu_catalog.card_of(here) if here else None
        on_cards = [*gpu_catalog.NAMED, *([own] if own else [])]
        target = _target(options, own)
        for (name, plain), answer in zip(found, answers, strict=True):
            if isinstance(answer, Prediction) and gpu_catalog.needed_bytes(answer) > target.capacity_bytes:
                steps[name] = until_it_fits(plain, target.capacity_bytes, _quickly(machine, answer))
        remedies = plan_table.remedy_lines(steps, target)
    lines = [*plan_table.text(predicted, on_cards, machine, corners), *remedies]
    folder = Path(str(options["out"]).replace("${study}", study))
    lines += _write(folder, study, machine, predicted, steps, on_cards, as_json=bool(options["json"]))
    return redaction.text("\n".join(lines))


def settings(args: Any) -> tuple[list[tuple[str, Mapping[str, Any]]], str, bool]:
    """(name, plain config) of each setting, composed as in a study; the study's name; and whether the settings are the
    corners of a space that a sampler searches."""
    with Composer(CONF, args.config_dir, args.config_name or "config") as composing:
        config = composing.compose(args.overrides, multirun=bool(args.multirun))
        if not args.multirun:
            plain = plain_config(config)
            return [(setting_name(plain, varied_keys(args.overrides)), plain)], str(plain["study"]["name"]), False
        from sweep.study.objectives.training import TrainingObjective
        from sweep.study.search.enumeration import enumerate_settings

        options, loader = sweeper_options(config.hydra.sweeper), composing.loader
        found = enumerate_settings(loader, config, options, args.overrides, seed_is_replicate=True)
        compose = functools.partial(loader.load_sweep_config, config)
        study = TrainingObjective.from_space(compose, found, task=task, direction=options.direction)
    return [(one.name, one.plain) for one in study.settings.known.values()], str(study.study_name), found.searching


def _quickly(machine: Machine, before: Prediction) -> Any:
    """A fast predictor of a changed config: the closed form, whose error is smaller than what a change saves. The
    allocator's overhead, loading and evaluation are taken from the prediction `before`. If loading or evaluation
    decides, or if the closed form does not support the config, the run is executed on fake tensors."""
    held = (before.reserved_bytes or before.allocated_bytes * gpu_catalog.RESERVED_PRIOR) / before.allocated_bytes

    def ask(config: Mapping[str, Any]) -> Prediction | Unpredictable:
        answer = predict_by_formula(config, machine)
        if isinstance(answer, Prediction):
            answer = replace(
                answer,
                reserved_bytes=int(answer.allocated_bytes * held),
                load_bytes=before.load_bytes,
                eval_bytes=before.eval_bytes,
                relative_band=before.relative_band,
            )
            if gpu_catalog.deciding_phase(answer) == "train":
                return answer
        return predict([config], machine)[0]

    return ask


def _options(given: Sequence[str]) -> dict[str, Any]:
    """conf/plan.yaml with the options of the command line. ConfigError if one is unknown or its value is invalid."""
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "plan.yaml"), resolve=False)
    faults = []
    for text in given:
        key, _, value = text.removeprefix(PREFIX).partition("=")
        if key not in defaults:
            faults.append(Fault(f"{PREFIX}{key}", value, f"unknown option; {alternatives(key, list(defaults))}"))
            continue
        try:
            defaults[key] = value if key == "out" else OmegaConf.from_dotlist([f"v={value}"])["v"]
        except OmegaConfBaseException as error:
            faults.append(Fault(f"{PREFIX}{key}", value, first_line(error)))
    if defaults["device"] not in ("cuda", "cpu"):
        faults.append(Fault("plan.device", str(defaults["device"]), "must be cuda or cpu"))
    faults += [
        Fault(f"plan.{key}", str(defaults[key]), "must be null or a number")
        for key in ("gpu_memory_gb", "capability")
        if defaults[key] is not None and not isinstance(defaults[key], int | float)
    ]
    if not isinstance(defaults["json"], bool):
        faults.append(Fault("plan.json", str(defaults["json"]), "must be true or false"))
    if faults:
        raise ConfigError(faults)
    return defaults


def _machine(options: Mapping[str, Any], here: Gpu | None) -> Machine:
    if options["device"] == "cpu":
        return Machine(kind="cpu")
    if options["capability"] is not None:
        major, _, minor = str(float(options["capability"])).partition(".")
        return Machine(kind="cuda", capability=(int(major), int(minor)))
    return gpu_catalog.machine_of(here) if here else Machine(kind="cuda", capability=DEFAULT_CAPABILITY)


def _target(options: Mapping[str, Any], own: Card | None) -> Card:
    """The card that the settings should fit on."""
    asked = options["gpu_memory_gb"]
    if asked is None:
        return own or gpu_catalog.NAMED[-1]
    named = next((card for card in gpu_catalog.NAMED if card.label == str(asked)), None)
    return named or gpu_catalog.Card(f"{asked}", "plan.gpu_memory_gb", int(float(asked) * 2**30))


def _write(
    folder: Path,
    study: str,
    machine: Machine,
    predicted: Sequence[tuple[str, Prediction | Unpredictable]],
    steps: Mapping[str, Sequence[Mitigation]],
    on_cards: Sequence[Card],
    as_json: bool,
) -> list[str]:
    """Write the files, and return a line for each."""
    cards = [asdict(card) for card in on_cards]
    rows = [{"setting": name, **answer.as_dict()} for name, answer in predicted if isinstance(answer, Prediction)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        if as_json:
            content = {
                "study": study,
                "machine": asdict(machine),
                "cards": cards,
                "settings": [
                    {
                        "setting": name,
                        **(answer.as_dict() if isinstance(answer, Prediction) else {"reason": answer.reason}),
                        "needed_bytes": gpu_catalog.needed_bytes(answer) if isinstance(answer, Prediction) else None,
                        "mitigations": [asdict(step) for step in steps.get(name, [])],
                    }
                    for name, answer in predicted
                ],
            }
            (folder / "plan.json").write_text(json.dumps(redaction.tree(content), indent=1) + "\n")
            written.append(folder / "plan.json")
        if rows:
            from analysis.charts import memory_plan

            written += memory_plan.save(memory_plan.data(rows), cards, folder / "memory")
    except OSError as error:
        fault = Fault("plan.out", str(folder), f"cannot be written: {error.strerror}; name another")
        raise ConfigError([fault]) from error
    return ["", *(f"written: {path}" for path in written)]


if __name__ == "__main__":
    main()
