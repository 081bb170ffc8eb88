"""`python -m sweep.plan`: the predicted peak memory of every setting of a study. No GPU, no weights, nothing launched.

Takes the overrides of `python -m sweep`, and options of its own as `plan.KEY=VALUE` (conf/plan.yaml). This command
draws with the charts of `analysis`, which it alone of this package may import, and only as it writes its picture.
"""

from __future__ import annotations

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
from sweep.config.schema import plain_config
from sweep.core import redaction
from sweep.core.errors import ConfigError, Fault, UserError, alternatives, first_line
from sweep.core.paths import CONF
from sweep.core.setting import setting_name, varied_keys
from sweep.diagnostics.mitigations import Mitigation, until_it_fits
from sweep.hydra_compat import composer
from sweep.hydra_compat.composer import Composer
from sweep.launch.hydra_task import task
from sweep.memory import Machine, Prediction, Unpredictable, gpu_catalog, predict
from sweep.memory.closed_form.estimate import predict_by_formula

if TYPE_CHECKING:
    from sweep.memory.gpu_catalog import Card

PREFIX = "plan."
DEFAULT_CAPABILITY = (8, 0)
HELP = """python -m sweep.plan [-m] [--config-dir FOLDER] [overrides of python -m sweep] [plan.KEY=VALUE]

The predicted peak memory of every setting, what each byte is for, and which cards have room. Nothing is launched.

  python -m sweep.plan -m experiment=llama3_qlora
  python -m sweep.plan -m experiment=llama3_qlora plan.gpu_memory_gb=24 plan.json=true

Options, with their defaults:
"""


def main() -> None:
    args = composer.command_line()
    if args.help:
        print(HELP + (CONF / "plan.yaml").read_text())
        return
    own = [text for text in args.overrides if text.startswith(PREFIX)]
    args.overrides = [text for text in args.overrides if not text.startswith(PREFIX)]
    try:
        options = _options(own)
        validation.check(CONF, args, "config", validate)
        print(plan(args, options))
    except UserError as error:
        app.stop(error)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        raise SystemExit(app.INTERRUPTED) from None


def plan(args: Any, options: Mapping[str, Any]) -> str:
    """The table and the words around it; the files are written."""
    found, study, corners = settings(args)
    here = gpu_catalog.present()
    machine = _machine(options, here)
    on_cards = [*gpu_catalog.NAMED, *(card for card, _ in here)] if machine.kind == "cuda" else []
    answers = predict([plain for _, plain in found], machine)
    predicted = [(name, answer) for (name, _), answer in zip(found, answers, strict=True)]
    target = _target(options, here) if on_cards else None
    steps: dict[str, list[Mitigation]] = {}
    for (name, plain), answer in zip(found, answers, strict=True):
        if (
            target is not None
            and isinstance(answer, Prediction)
            and gpu_catalog.needed_bytes(answer) > target.capacity_bytes
        ):
            steps[name] = until_it_fits(plain, target.capacity_bytes, _quickly(machine, answer))
    lines = plan_table.text(predicted, on_cards, machine, corners)
    lines += plan_table.remedy_lines(steps, target) if target is not None else []
    folder = Path(str(options["out"]).replace("${study}", study))
    lines += _write(folder, study, machine, predicted, steps, on_cards, as_json=bool(options["json"]))
    return redaction.text("\n".join(lines))


def settings(args: Any) -> tuple[list[tuple[str, Mapping[str, Any]]], str, bool]:
    """(name, plain config) of each setting, composed as the sweeper composes them; the study's name; and whether they
    are the corners of a space that would be searched."""
    from sweep.study.engine import Engine

    with Composer(CONF, args.config_dir, args.config_name or "config") as composing:
        config = composing.compose(args.overrides, multirun=bool(args.multirun))
        if not args.multirun:
            plain = plain_config(config)
            return [(setting_name(plain, varied_keys(args.overrides)), plain)], str(plain["study"]["name"]), False
        options = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        context = composing.context
        composed, corners = Engine(context, task, config, options).settings(args.overrides)
    return [(one.name, one.plain) for one in composed], str(composed[0].plain["study"]["name"]), corners


def _quickly(machine: Machine, before: Prediction) -> Any:
    """For what-if questions: the closed form where it answers, which takes no time and differs from the execution by
    less than a change saves; else the execution. What the allocator holds beyond what it gave out is that of `before`,
    and so are loading and evaluation, of which the closed form knows nothing: where they decide, the run is executed.
    """
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
    """conf/plan.yaml with the options of the command line.

    Raises:
        ConfigError: for unknown ones, and values that mean nothing.
    """
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "plan.yaml"), resolve=False)
    faults = []
    for text in given:
        key, _, value = text.removeprefix(PREFIX).partition("=")
        if key not in defaults:
            faults.append(Fault(f"{PREFIX}{key}", value, f"unknown option; {alternatives(key, list(defaults))}"))
            continue
        try:
            defaults[key] = (
                value if key == "out" else OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value}"]))["v"]
            )
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


def _machine(options: Mapping[str, Any], here: Sequence[tuple[Card, Machine]]) -> Machine:
    if options["device"] == "cpu":
        return Machine(kind="cpu")
    if options["capability"] is not None:
        major, _, minor = str(float(options["capability"])).partition(".")
        return Machine(kind="cuda", capability=(int(major), int(minor)))
    return here[0][1] if here else Machine(kind="cuda", capability=DEFAULT_CAPABILITY)


def _target(options: Mapping[str, Any], here: Sequence[tuple[Card, Machine]]) -> Card:
    """The card that room is to be made on."""
    asked = options["gpu_memory_gb"]
    if asked is None:
        return here[0][0] if here else gpu_catalog.NAMED[-1]
    named = next((card for card in gpu_catalog.NAMED if card.label == str(asked)), None)
    return named or gpu_catalog.Card(f"{asked}", "as asked", int(float(asked) * 2**30))


def _write(
    folder: Path,
    study: str,
    machine: Machine,
    predicted: Sequence[tuple[str, Prediction | Unpredictable]],
    steps: Mapping[str, Sequence[Mitigation]],
    on_cards: Sequence[Card],
    as_json: bool,
) -> list[str]:
    """The files, and a line for each."""
    rows = [(name, answer) for name, answer in predicted if isinstance(answer, Prediction)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        if as_json:
            content = {
                "study": study,
                "machine": asdict(machine),
                "cards": [asdict(card) for card in on_cards],
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

            bars = memory_plan.data([{"setting": name, **answer.as_dict()} for name, answer in rows])
            written += memory_plan.save(bars, [asdict(card) for card in on_cards], folder / "memory")
    except OSError as error:
        raise ConfigError(
            [Fault("plan.out", str(folder), f"cannot be written: {error.strerror}; name another")]
        ) from error
    return ["", *(f"written: {path}" for path in written)]


if __name__ == "__main__":
    main()
