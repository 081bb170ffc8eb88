"""From runs to adapters and models that others load: the same scores, the same logits, and a detected drop."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import mlflow
import pytest
import torch
from conftest import compose
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sweep.config.schema import parse
from sweep.core import provenance
from sweep.core.errors import ConfigError, UserError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.datasets.scan import ScanAroundRight
from sweep.deployment import adapter_comparison, exporter
from sweep.deployment.comparison_options import parse as parse_comparison
from sweep.deployment.merge_check import Logits
from sweep.deployment.score_check import difference
from sweep.deployment.stored_run import best
from sweep.launch.run_supervisor import close_run
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.f1 import F1
from sweep.metrics.pearson import Pearson
from sweep.tracking.mlflow_store import MlflowStore
from sweep.tracking.options import Tracking
from sweep.training import trained_weights
from sweep.training_run import run_training
from sweep.variants.lora import LoRA

pytestmark = pytest.mark.slow
IDS = torch.arange(4, 20)[None]
SPLITS = {"train": "train", "validation": "dev", "test": "test"}


class Study(NamedTuple):
    tracking: Tracking
    store: MlflowStore
    runs: dict[str, str]  # "setting seed" → run id
    base: Path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Study:
    """Real runs in a real store, as the sweeper writes them."""
    folder = tmp_path_factory.mktemp("study")
    base = shutil.copytree(tiny_checkpoint, folder / "base")
    tracking = Tracking(uri=f"sqlite:///{folder}/mlflow.db", artifacts=str(folder / "artifacts"), experiment="tests")
    store = MlflowStore(tracking.uri, tracking.experiment, tracking.artifacts)
    parent = store.create_study("deploy", {}, {}).info.run_id
    store.client.set_tag(parent, "selected", "lora_r8")
    splits = ScanAroundRight(n_train=200, n_validation=40).load()
    for name, examples in (("train", splits.train), ("dev", splits.validation), ("test", splits.validation[:30])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(dict(example)) + "\n" for example in examples))
    runs = {}
    for variant, seed in [("lora_r8", 0), ("lora_r8", 1), ("qlora_r8", 0), ("fft", 0), ("prompt_tuning", 0)]:
        plain = compose(
            f"variant={variant}", f"seed={seed}", "model=pretrained", f"model.path={base}", "train.max_steps=12",
            "train.micro_batch_size=8", "task.max_new_tokens=6", "task.score=token_accuracy",
            "variant.learning_rate=1e-2", "data@task.data=files",
            *(f"task.data.{name}={folder}/{file}.jsonl" for name, file in SPLITS.items()),
        )  # fmt: skip
        conditions = provenance.conditions(plain, parse(plain).model.prepare(silent), ["variant"], [])
        record = Record(
            variant=variant,
            setting=variant,
            seed=seed,
            study="deploy",
            outcome=Outcome.KILLED,
            facts={"metric": "token_accuracy", "conditions": json.dumps(conditions)},
        )
        files = folder / f"{variant}-{seed}"
        files.mkdir()
        row = store.open_run(record, parent, {}, plain)
        record = run_training(RunRequest(config=plain, record=record, folder=str(files)), silent)
        assert record.outcome is Outcome.OK, record.reason
        close_run(row, record, files, may_wait=False)
        assert not (files / "checkpoint").exists()  # the store has a copy
        runs[f"{variant} {seed}"] = row.run_id
    return Study(tracking, store, runs, base)


def export(kept: Study, out: Path, **options: Any) -> exporter.card.ExportedModel:
    defaults: dict[str, Any] = {
        "study": "deploy",
        "run": None,
        "base": None,
        "base_revision": None,
        "trust_remote_code": False,
        "packages": [],
        "merge": False,
        "dtype": "auto",
        "allow_drop": False,
        "register": None,
    }
    return exporter.export({**defaults, "out": str(out), **options}, kept.tracking)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.long
def test_the_pick_s_adapter_loads_with_plain_peft_and_scores_the_same(study: Study, tmp_path: Path):
    made = export(study, tmp_path / "out")
    records = dict(study.store.records(study.store.find_study("deploy").info.run_id))
    replicates = [study.runs["lora_r8 0"], study.runs["lora_r8 1"]]
    assert made.run.run_id == max(replicates, key=lambda i: records[i].measurements["score"])
    assert made.difference.changed == 0
    assert made.difference.after == records[made.run.run_id].measurements["score"] > 0
    asked = {json.loads(line)["prompt"] for line in (study.base.parent / "test.jsonl").read_text().splitlines()}
    kept = [row["token_accuracy"] for row in made.run.rows if row["prompt"] in asked]
    assert len(kept) == 30 < len(made.run.rows)
    logged = study.store.run(made.run.run_id).data.metrics
    assert logged["export/score_drop"] == 0
    assert logged["test/token_accuracy"] == made.test["token_accuracy"] == pytest.approx(sum(kept) / len(kept))
    assert "on the test split, which did not influence any choice" in exporter.summary(made)
    scores = [records[i].measurements["score"] for i in replicates]
    assert f"their mean is {sum(scores) / 2:.4f}" in exporter.summary(made)
    model = PeftModel.from_pretrained(load(study.base), tmp_path / "out")
    assert not torch.equal(logits(model), logits(load(study.base)))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"`{study.base}`" in card
    assert "PeftModel.from_pretrained" in card
    assert "the same on each of 40 examples" in card


@pytest.mark.long
def test_a_merged_model_needs_no_peft_and_gives_the_adapter_s_logits(study: Study, tmp_path: Path):
    run_id = study.runs["lora_r8 0"]
    export(study, tmp_path / "adapter", run=run_id)
    made = export(study, tmp_path / "model", run=run_id, merge=True)
    adapted = PeftModel.from_pretrained(load(study.base), tmp_path / "adapter")
    torch.testing.assert_close(logits(load(tmp_path / "model")), logits(adapted), rtol=1e-4, atol=1e-5)
    assert made.dtype == "float32"
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["use_cache"] is True


def test_a_qlora_adapter_is_merged_into_16_bits_and_the_summary_says_so(study: Study, tmp_path: Path):
    made = export(study, tmp_path / "out", run="qlora_r8", merge=True, allow_drop=True)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert "bfloat16 load of the base, and not into the quantised weights" in exporter.summary(made)
    # Computed here: the unquantised weight, plus the change of the adapter.
    kept = study.store.fetch(study.runs["qlora_r8 0"], "checkpoint", tmp_path)
    adapter = load_file(kept / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    whole = load(study.base).get_submodule(name).weight.detach()
    wanted = (whole.bfloat16().float() + 16 / 8 * b @ a).bfloat16()
    torch.testing.assert_close(stored[f"{name}.weight"], wanted, rtol=1e-2, atol=1e-3)


def test_full_weights_are_exported_whole(study: Study, tmp_path: Path):
    made = export(study, tmp_path / "out", run="fft · seed 0")
    assert (made.is_adapter, made.difference.changed) == (False, 0)
    assert not torch.equal(logits(load(tmp_path / "out")), logits(load(study.base)))


def test_a_variant_that_changes_no_weights_is_not_merged(study: Study, tmp_path: Path):
    with pytest.raises(UserError, match="cannot be merged into them"):
        export(study, tmp_path / "out", run="prompt_tuning", merge=True)
    assert list(tmp_path.iterdir()) == []


def test_a_drop_beyond_the_noise_is_an_error_unless_allowed(study: Study, tmp_path: Path):
    """Two stored adapters are exchanged: each has the other's score."""
    run_id = study.runs["lora_r8 0"]
    artifact = Path(study.store.run(run_id).info.artifact_uri.removeprefix("file://"), "checkpoint")
    file = artifact / "adapter_model.safetensors"
    before = file.read_bytes()
    save_file({key: torch.randn_like(value) for key, value in load_file(file).items()}, file)
    try:
        with pytest.raises(UserError, match=r"worse than its run: .* beyond the noise .* allow_drop=true"):
            export(study, tmp_path / "out", run=run_id)
        assert list(tmp_path.iterdir()) == []
        assert export(study, tmp_path / "out", run=run_id, allow_drop=True).difference.beyond_noise
    finally:
        file.write_bytes(before)


def test_a_moved_base_is_found_and_another_base_is_refused(study: Study, tmp_path: Path):
    moved = study.base.rename(tmp_path / "moved")
    try:
        with pytest.raises(UserError, match="which does not exist here; give its folder: base=<folder>"):
            export(study, tmp_path / "out")
        with pytest.raises(UserError, match="base model has changed: this run adapted"):
            export(study, tmp_path / "out", base=str(copy_of(moved, tmp_path / "other", 0.01)))
        assert export(study, tmp_path / "out", base=str(moved)).difference.changed == 0
        assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").peft_config["default"].r == 8
    finally:
        moved.rename(study.base)


def test_an_error_about_a_wrong_run_lists_the_right_ones(study: Study, tmp_path: Path):
    with pytest.raises(UserError, match=r"not a run or a setting of study deploy; did you mean lora_r8\?"):
        export(study, tmp_path / "out", run="lora_r9")
    with pytest.raises(UserError, match="no study nowhere"):
        export(study, tmp_path / "out", study="nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match="has other files than an export; choose another folder"):
        export(study, tmp_path / "mine")
    with pytest.raises(UserError, match="there is no tracking store"):
        exporter.export({}, Tracking(uri=f"sqlite:///{tmp_path}/no.db", artifacts="", experiment="tests"))


def test_weights_are_kept_by_size(tmp_path: Path, tiny_checkpoint: Path):
    config = parse(compose("variant=fft", "model=pretrained", f"model.path={tiny_checkpoint}"))
    model = config.variant.wrap(load(tiny_checkpoint), "CAUSAL_LM", False)
    size = 4 * model.num_parameters()
    base = {"uri": "sqlite:///x", "artifacts": "", "experiment": "x"}
    small = Tracking(**base, max_saved_weights_bytes=size - 1)
    assert trained_weights.keep(config.variant, model, tmp_path / "a", small) == {"weights/trained_bytes": size}
    assert not (tmp_path / "a").exists()
    kept = trained_weights.keep(config.variant, model, tmp_path / "b", Tracking(**base, max_saved_weights_bytes=size))
    assert kept["weights/saved_bytes"] == sum(file.stat().st_size for file in (tmp_path / "b").iterdir()) > size


def test_a_registered_model_loads_from_the_registry(study: Study, tmp_path: Path):
    """An adapter by plain PEFT, a merged model by MLflow."""
    adapter = export(study, tmp_path / "adapter", run="lora_r8", register="scan")
    merged = export(study, tmp_path / "merged", run="lora_r8", register="scan", merge=True)
    assert (adapter.registered, merged.registered) == ("models:/scan/1", "models:/scan/2")
    source = study.store.client.get_model_version("scan", "1").source
    model = PeftModel.from_pretrained(load(study.base), source.removeprefix("file://"))
    assert torch.equal(logits(model), logits(PeftModel.from_pretrained(load(study.base), tmp_path / "adapter")))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(study.tracking.uri)
    try:
        loaded = mlflow.transformers.load_model(merged.registered, return_type="components")
    finally:
        mlflow.set_tracking_uri(before)
    assert torch.equal(logits(loaded["model"]), logits(load(tmp_path / "merged")))
    assert loaded["tokenizer"].padding_side == "left"


def test_adapters_are_swapped_on_one_base_and_add_up(study: Study, tmp_path: Path):
    folders, scores = [], []
    for seed in (0, 1):
        made = export(study, tmp_path / str(seed), run=study.runs[f"lora_r8 {seed}"])
        folders.append(str(made.folder))
        scores.append(made.difference.after)
    plain = compose(
        f"adapters=[{','.join(folders)}]", "weights=[0.3,0.7]", "combination_type=cat", f"out={tmp_path}/both",
        "task.data.n_validation=40", "task.max_new_tokens=6", config_name="evaluate",
    )  # fmt: skip
    comparison = parse_comparison(plain)
    assert comparison.model.location()[0] == str(study.base)  # the base that the adapters name
    results = adapter_comparison.compare(comparison)
    assert [r.name for r in results] == [adapter_comparison.BASE, "0", "1", adapter_comparison.COMBINED]
    assert [r.scores["token_accuracy"] for r in results[1:3]] == pytest.approx(scores)
    assert "0.0" in adapter_comparison.table(results)
    assert json.loads((tmp_path / "both" / "evaluation.json").read_text())[1]["scores"] == results[1].scores
    name = "model.layers.0.mlp.up_proj"
    deltas = [PeftModel.from_pretrained(load(study.base), f).get_submodule(f"base_model.model.{name}") for f in folders]
    both = PeftModel.from_pretrained(load(study.base), tmp_path / "both" / "combined")
    added = both.get_submodule(f"base_model.model.{name}").get_delta_weight("default")
    wanted = 0.3 * deltas[0].get_delta_weight("default") + 0.7 * deltas[1].get_delta_weight("default")
    torch.testing.assert_close(added, wanted, rtol=1e-4, atol=1e-6)


def test_adapters_that_cannot_be_compared_are_an_error(study: Study, tmp_path: Path):
    (tmp_path / "config.json").touch()
    given = [f"adapters=[{tmp_path}]", "weights=[1,2]"]
    with pytest.raises(ConfigError) as caught:
        parse_comparison(compose(*given, "base=/nowhere", config_name="evaluate"))
    assert [fault.key for fault in caught.value.faults] == ["base", "weights", "adapters"]
    assert f"is a whole model: to score it, use base={tmp_path} 'adapters=[]'" in caught.value.faults[-1].message
    with pytest.raises(ConfigError, match="no adapter names one: say which one to load"):
        parse_comparison(compose("adapters=[]", config_name="evaluate"))
    made = export(study, tmp_path / "adapter", run="qlora_r8")
    other = copy_of(study.base, tmp_path / "other", 0.01)
    with pytest.raises(UserError, match=r"needs another base: it was trained on sha256:\w+, and this base is sha256:"):
        adapter_comparison.compare(
            parse_comparison(compose(f"adapters=[{made.folder}]", f"base={other}", config_name="evaluate"))
        )


def copy_of(base: Path, to: Path, added: float) -> Path:
    """A base of the same shape with other weights."""
    shutil.copytree(base, to)
    file = to / "model.safetensors"
    save_file({key: value + added for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return to


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings")
def test_an_adapter_on_a_tied_embedding_is_merged_into_one_of_the_two(tmp_path: Path):
    """PEFT merges in place, into both. The logits of the model with its adapter are the truth."""
    checkpoints.llama(tmp_path / "base", tie_word_embeddings=True)
    variant = parse(compose("variant=lora_r8", "variant.target_modules=[q_proj,lm_head]")).variant
    adapted = variant.wrap(load(tmp_path / "base"), "CAUSAL_LM", False)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    before = logits(adapted)
    assert (before - logits(load(tmp_path / "base"))).abs().max() > 1
    variant.merge(adapted).save_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(load(tmp_path / "out")), before, rtol=1e-4, atol=1e-4)


def test_a_merge_that_computes_something_else_is_refused_whatever_its_score(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def wrong(self: LoRA, model: Any) -> Any:
        return model.unload()  # the base alone

    monkeypatch.setattr(LoRA, "merge", wrong)
    with pytest.raises(UserError, match=r"does not compute what the run's model computes: its logits differ by"):
        export(study, tmp_path / "out", run="lora_r8", merge=True, allow_drop=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "error"), [(4, 1e-4), (2, 1e-2)])
def test_logits_may_differ_by_rounding_only(size: int, error: float):
    base = torch.linspace(-1, 1, 64)
    found = Logits(base, trained=base + 0.1)
    found.require_equal(base + 0.1 + error * base, size)
    with pytest.raises(UserError, match=r"differ by 0\.1 .* moved them by 0\.1"):
        found.require_equal(base, size)


def test_equal_scores_with_other_answers_are_not_the_same():
    old, new = ([{"reference": "a", "prediction": p, "m": 0.0} for p in ps] for ps in ("bcde", "bxyz"))
    found = difference("m", ExactMatch(), (0.0, old), (0.0, new))
    assert (found.changed, found.drop) == (3, 0.0)
    assert "3 of 4 examples differ" in str(found)
    numbers = ([{"reference": "1", "prediction": p} for p in ps] for ps in (["1.0000001", "2"], ["1.0000002", "3"]))
    assert difference("x", Pearson(), *((0.5, side) for side in numbers)).changed == 1


def rows(*values: float | None) -> list[dict[str, Any]]:
    return [{"index": index, "m": value} for index, value in enumerate(values)]


class Less(ExactMatch):
    higher_is_better = False


def test_the_noise_is_that_of_paired_examples():
    """One change of four: the mean is -1/4, and the standard error 1/4."""
    found = difference("m", ExactMatch(), (1.0, rows(1, 1, 1, 1)), (0.75, rows(1, 0, 1, 1)))
    assert (found.drop, found.changed, found.noise) == (0.25, 1, pytest.approx(2 * 0.25))
    assert not found.beyond_noise
    # Ten of a hundred, all worse: 0.1, and 2 · sqrt(0.1 · 0.9 / 99).
    found = difference("m", ExactMatch(), (1.0, rows(*[1] * 100)), (0.9, rows(*[0] * 10, *[1] * 90)))
    assert found.noise == pytest.approx(2 * math.sqrt(0.09 / 99))
    assert found.beyond_noise
    # The same for a metric where lower is better.
    assert difference("m", Less(), (0.9, rows(*[0] * 10, *[1] * 90)), (1.0, rows(*[1] * 100))).beyond_noise
    assert not difference("m", Less(), (1.0, rows(*[1] * 100)), (0.9, rows(*[0] * 10, *[1] * 90))).beyond_noise
    # Without a change the drop is 0; without examples or predictions, 1% is allowed.
    assert not difference("m", ExactMatch(), (1.0, rows(1, 1)), (1.0, rows(1, 1))).beyond_noise
    assert not difference("other", ExactMatch(), (50.0, rows(1)), (49.6, rows(1))).beyond_noise
    assert difference("other", ExactMatch(), (50.0, rows(1)), (49.4, rows(1))).beyond_noise


def test_the_noise_of_a_metric_over_the_whole_set_is_the_jackknife_s():
    """For a mean, the jackknife is the standard error of the mean; accuracy without its column shows it."""

    def answers(wrong: int) -> list[dict[str, Any]]:
        return [{"reference": "a", "prediction": "b" if i < wrong else "a", "m": float(i >= wrong)} for i in range(20)]

    sides = (1.0, answers(0)), (0.75, answers(5))
    by_column = difference("m", Accuracy(), *sides)
    by_jackknife = difference("no such column", Accuracy(), *sides)
    assert by_jackknife.noise == pytest.approx(by_column.noise)
    assert by_jackknife.changed == by_column.changed == 5
    assert difference("x", F1(average="macro"), (1.0, answers(0)), (1.0, answers(0))).drop == 0


def test_the_best_replicate():
    def replicate(seed: int, score: float, direction: str = "maximize", outcome: Outcome = Outcome.OK):
        facts = {"direction": direction}
        record = Record(
            variant="v", setting="v", seed=seed, outcome=outcome, measurements={"score": score}, facts=facts
        )
        return str(seed), record

    assert best([replicate(0, 0.5), replicate(1, 0.7), replicate(2, 0.7)])[0] == "1"
    assert best([replicate(0, 0.5, "minimize"), replicate(1, 0.7, "minimize")])[0] == "0"
    assert best([replicate(0, 0.9, outcome=Outcome.OOM), replicate(1, 0.1)])[0] == "1"
