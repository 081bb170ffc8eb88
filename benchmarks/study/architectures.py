"""Which variants run on which architectures: each pair is tried with a tiny model of random weights.

    python -m benchmarks.study.architectures [architecture …]

Every architecture × every variant in `conf/variant/`, for the task that the architecture fits: loaded, wrapped, trained
for two steps, saved and evaluated on two examples, by the code of real runs. A pair runs, or is refused with a reason,
or fails. Takes about an hour on two cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.memory.architectures import HEADS, MODELS
from benchmarks.results import save
from sweep.core.paths import CONF
from sweep.processes import isolated_call

PAIRS = [("walk left twice", "look"), ("jump right", "run"), ("look left", "look"), ("run right twice", "run")] * 4


def write_data(folder: Path) -> None:
    rows = [{"text": text, "label": word, "prompt": text, "response": word} for text, word in PAIRS]
    for name, kept in (("train", rows), ("validation", rows[:2])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


def save_checkpoint(task: str, name: str, folder: str, report: object = None) -> None:
    """Random weights and a real tokenizer, as `save_pretrained` writes them."""
    import transformers

    from sweep.models.scan_llama import build_tokenizer

    tokenizer = build_tokenizer()
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {**MODELS[task][name], **{key: value for key, value in ids.items() if value is not None}}
    config = transformers.AutoConfig.for_model(name, **sizes)
    getattr(transformers, f"AutoModelFor{HEADS[task]}").from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def try_all(task: str, folder: str, data: str, variants: list[str], report: object = None) -> dict[str, dict[str, Any]]:
    """Each variant on the checkpoint in `folder`: its outcome and its reason."""
    return {variant: _try(task, folder, data, variant) for variant in variants}


def _try(task: str, folder: str, data: str, variant: str) -> dict[str, Any]:
    from sweep.config.schema import plain_config
    from sweep.core.errors import ConfigError, UserError
    from sweep.core.record import Outcome, Record
    from sweep.core.reporter import silent
    from sweep.core.run_request import RunRequest
    from sweep.hydra_compat.composer import Composer
    from sweep.training_run import run_training

    given = [
        "model=pretrained", f"model.path={folder}", f"task={task}", "data@task.data=files",
        f"task.data.train={data}/train.jsonl",
        f"task.data.validation={data}/validation.jsonl", f"variant={variant}", "train.max_steps=2",
        "train.max_length=64", "train.micro_batch_size=2", "train.gradient_accumulation_steps=1",
        "train.eval_batch_size=2", *([] if task == "classification" else ["task.max_new_tokens=4"]),
    ]  # fmt: skip
    try:
        with Composer(CONF, None, "config") as composer, tempfile.TemporaryDirectory() as run_folder:
            plain = plain_config(composer.compose(given, multirun=False))
            plain["model"]["attention"] = _attention(plain)
            record = Record(variant=variant, setting=variant, seed=0, outcome=Outcome.KILLED)
            ended = run_training(RunRequest(config=plain, record=record, folder=run_folder), silent)
            log = Path(run_folder, "traceback.txt")
            crashed = log.exists()
            tail = log.read_text()[-1500:] if crashed else ""
    except (ConfigError, UserError) as error:
        return {"result": "refused", "reason": str(error)[:500]}
    if ended.outcome is Outcome.OK:
        kept = ("base/adapted_fraction", "base/quantized_fraction", "trainable_params")
        return {"result": "runs", **{key: ended.measurements[key] for key in kept if key in ended.measurements}}
    result = "fails" if crashed else "refused"
    return {"result": result, "reason": ended.reason[:500], **({"traceback": tail} if tail else {})}


def _attention(plain: dict[str, Any]) -> str:
    """The fused kernel, or eager attention where the architecture has no other."""
    from sweep.config.schema import parse
    from sweep.core.errors import UserError

    config = parse(plain)
    try:
        config.model.check(config.task.auto_class())
    except UserError:
        return "eager"
    return config.model.attention


def main() -> None:
    chosen = sys.argv[1:]
    variants = sorted(path.stem for path in (CONF / "variant").glob("*.yaml"))
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch))
        here = "benchmarks.study.architectures"
        for task, models in MODELS.items():
            for name in models:
                if chosen and name not in chosen:
                    continue
                folder, log_file = f"{scratch}/{task}-{name}", Path(scratch, "log.txt")
                isolated_call.call(f"{here}:save_checkpoint", task, name, folder, log_file=log_file)
                found = isolated_call.call(f"{here}:try_all", task, folder, scratch, variants, log_file=log_file)
                rows[f"{name} {task}"] = found
                print(f"{name:14} {task:15} {dict(Counter(row['result'] for row in found.values()))}", flush=True)
                for variant, row in found.items():
                    if row["result"] != "runs":
                        print(f"   {variant:16} {row['result']:8} {row['reason'][:160]}", flush=True)
    counts = Counter(row["result"] for found in rows.values() for row in found.values())
    figures = {"architectures": len(rows), "variants": len(variants), **counts, "rows": rows}
    print({key: value for key, value in figures.items() if key != "rows"})
    if not chosen:
        save("architectures", figures, shown=False)


if __name__ == "__main__":
    main()
