"""The plan shows which settings fit, what each byte is for, and which changes save memory. It launches no run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, compose
from huggingface_hub import constants
from llama3 import A100, LLAMA3_8B, architecture

from analysis.charts import memory_plan
from sweep import plan
from sweep.cli import plan_table
from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.core.reporter import silent
from sweep.diagnostics.mitigations import until_it_fits
from sweep.memory import gpu_catalog, predictor, workload
from sweep.memory.closed_form.estimate import predict_by_formula
from sweep.memory.prediction import Machine, Prediction, Unpredictable

GIB = 2**30


def predicted(**changed: Any) -> Prediction:
    figures = {"allocated_bytes": 10 * GIB, "breakdown": {"activations": 10 * GIB}, "relative_band": 0.0, **changed}
    return Prediction(tier="trace", peak_at="backward", **figures)


def test_a_process_needs_what_its_allocator_holds_and_the_context():
    assert gpu_catalog.needed_bytes(predicted(reserved_bytes=12 * GIB)) == 12 * GIB + gpu_catalog.CONTEXT_BYTES
    assert (
        gpu_catalog.needed_bytes(predicted(reserved_bytes=12 * GIB, eval_bytes=13 * GIB))
        == 13 * GIB + gpu_catalog.CONTEXT_BYTES
    )
    assert gpu_catalog.needed_bytes(predicted()) == int(11.6 * GIB) + gpu_catalog.CONTEXT_BYTES


@pytest.mark.parametrize(("reserved", "label"), [(12, "16"), (15, "24"), (70, "80"), (139, "141"), (140, None)])
def test_the_smallest_card_that_a_setting_fits_on(reserved: int, label: str | None):
    found = gpu_catalog.smallest(predicted(reserved_bytes=reserved * GIB), gpu_catalog.NAMED)
    assert (found.label if found else None) == label


def llama(folder: Path, variant: str, *overrides: str) -> Mapping[str, Any]:
    return compose(
        "model=pretrained", f"model.path={architecture(folder)}", f"variant={variant}", "train.micro_batch_size=4",
        "train.gradient_accumulation_steps=2", "train.max_length=1024", "train.max_steps=10", *overrides,
    )  # fmt: skip


def test_mitigations_save_what_they_report_and_end_when_the_setting_fits(tmp_path: Path):
    """Each step's saving is the difference of two predictions, which this test makes itself."""

    def ask(config: Mapping[str, Any]) -> Prediction | Unpredictable:
        return predict_by_formula(config, A100)

    config = llama(tmp_path, "lora_r16")
    steps = until_it_fits(config, 24 * GIB, ask)
    assert [step.overrides for step in steps[:2]] == [
        "train.activation_checkpointing=true",
        "train.micro_batch_size=2 train.gradient_accumulation_steps=4",
    ]
    by_hand = llama(tmp_path, "lora_r16", "train.activation_checkpointing=true")
    before, after = gpu_catalog.needed_bytes(ask(config)), gpu_catalog.needed_bytes(ask(by_hand))
    assert steps[0].saved_bytes == before - after
    assert before - sum(step.saved_bytes for step in steps) == steps[-1].needed_bytes <= 24 * GIB
    assert all(step.saved_bytes > 0 for step in steps)


def test_evaluation_is_reduced_first_if_it_needs_most(tmp_path: Path):
    """Evaluation needs 0.5 GiB for each answer at the same time, and training needs 10 GiB."""

    def ask(config: Mapping[str, Any]) -> Prediction:
        return predicted(reserved_bytes=10 * GIB, eval_bytes=int(config["train"]["eval_batch_size"] * 0.5 * GIB))

    config = llama(tmp_path, "lora_r16", "train.eval_batch_size=64")
    assert gpu_catalog.deciding_phase(ask(config)) == "eval"
    [step] = until_it_fits(config, 24 * GIB, ask)
    assert (step.overrides, step.saved_bytes) == ("train.eval_batch_size=16", 22 * GIB)  # from 32 to the 10 of training
    assert "32.6 GiB to evaluate" in plan_table.text([("x", ask(config))], gpu_catalog.NAMED, A100, corners=False)[1]


def test_a_change_that_saved_nothing_is_tried_again_once_another_phase_needs_most(tmp_path: Path):
    """Each answer needs 0.25 GiB; training needs 20 GiB, or 5 with activation checkpointing."""

    def ask(config: Mapping[str, Any]) -> Prediction:
        train = config["train"]
        reserved = (5 if train["activation_checkpointing"] else 20) * GIB
        return predicted(reserved_bytes=reserved, eval_bytes=int(train["eval_batch_size"] * 0.25 * GIB))

    steps = until_it_fits(llama(tmp_path, "lora_r16", "train.eval_batch_size=64"), 8 * GIB, ask)
    assert [step.overrides for step in steps] == ["train.activation_checkpointing=true", "train.eval_batch_size=16"]


def test_the_last_mitigation_of_full_fine_tuning_is_a_quantised_base(tmp_path: Path):
    steps = until_it_fits(llama(tmp_path, "fft"), 24 * GIB, lambda config: predict_by_formula(config, A100))
    assert steps[-1].overrides == "variant=qlora_r16"
    assert steps[-1].needed_bytes <= 24 * GIB


def test_the_table_names_parts_cards_and_the_worst():
    rows = [("small", predicted(reserved_bytes=12 * GIB)), ("large", predicted(allocated_bytes=100 * GIB,
            breakdown={"frozen_weights": 100 * GIB}))]  # fmt: skip
    failed = [("odd", Unpredictable(reason="unknown model"))]
    lines = plan_table.text([*rows, *failed], gpu_catalog.NAMED, A100, corners=False)
    head, small, large, *rest = lines
    assert head.split()[:4] == ["setting", "peak", "in", "weights"]
    assert small.count("✓") == 6
    assert small.endswith("16 GB (T4)")
    assert large.count("✓") == 1
    assert "100.0 GiB" in large
    assert "worst: large, 100.0 GiB; all 2 together: 110.0 GiB" in rest
    assert rest[-2:] == ["odd: no prediction", "  unknown model"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("plan.gpu_memry_gb=24", "did you mean gpu_memory_gb?"),
        ("plan.device=tpu", "cuda or cpu"),
        ("plan.gpu_memory_gb=big", "null or a number"),
        ("plan.json=2", "true or false"),
    ],
)
def test_invalid_options_are_refused(given: str, words: str):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        plan._options([given])


def test_options_are_read():
    options = plan._options(["plan.gpu_memory_gb=24", "plan.out=/some/where", "plan.json=true", "plan.capability=9.0"])
    assert (options["gpu_memory_gb"], options["out"], options["json"]) == (24, "/some/where", True)
    assert plan._machine(options, []).capability == (9, 0)
    assert plan._target(options, []).name == "RTX 4090"


class Arguments:
    """A command line as Hydra's parser returns it."""

    config_dir = config_name = None

    def __init__(self, *overrides: str):
        self.overrides, self.multirun = list(overrides), True


def test_the_settings_are_those_of_the_study_or_its_corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found, study, corners = plan.settings(
        Arguments("study.name=ranks", "variant=lora_r8", "variant.r=4,16", "seed=0,1")
    )
    assert ([name for name, _ in found], study, corners) == (["lora_r8 r=4", "lora_r8 r=16"], "ranks", False)
    found, _, corners = plan.settings(Arguments("variant=lora_r8", "variant.r=choice(4,8,16)",
                                                "variant.learning_rate=interval(1e-4,1e-2)"))  # fmt: skip
    assert corners
    assert {(plain["variant"]["r"], plain["variant"]["learning_rate"]) for _, plain in found} == {
        (r, rate) for r in (4, 8, 16) for rate in (1e-4, 1e-2)
    }


def test_files_hold_the_predictions(tmp_path: Path):
    rows = [("small", predicted()), ("odd", Unpredictable(reason="unknown model"))]
    lines = plan._write(tmp_path / "plan", "name", Machine(kind="cpu"), rows, {}, gpu_catalog.NAMED, as_json=True)
    written = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert [one["setting"] for one in written["settings"]] == ["small", "odd"]
    assert sum(written["settings"][0]["breakdown"].values()) == written["settings"][0]["allocated_bytes"]
    assert written["settings"][1]["reason"] == "unknown model"
    assert (tmp_path / "plan" / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert any("plan.json" in line for line in lines)


def test_bars_add_up_to_the_peak():
    """Every category of a prediction is in a bar."""
    breakdown = {name: 2.0**power for power, name in enumerate(sorted(_categories()))}
    one = {"setting": "a", "allocated_bytes": sum(breakdown.values()), "paged_bytes": 3.0, "breakdown": breakdown}
    bars = memory_plan.data([one])
    parts = [column for column in bars if column not in ("setting", "memory")]
    assert bars[parts].sum(axis=1)[0] == bars["memory"][0] == sum(breakdown.values()) + 3.0
    assert bars["paged optimizer state"][0] == 3.0


def test_paged_state_has_a_column_where_there_is_any():
    def table(paged: int) -> str:
        found = Prediction(tier="formula", allocated_bytes=2**30, paged_bytes=paged, peak_at="optimizer",
                           breakdown={"gradients": 2**30}, relative_band=0.02)  # fmt: skip
        return "\n".join(plan_table.text([("a", found)], [], Machine(kind="cuda"), corners=False))

    assert "paged" not in table(0)
    assert "2.0 GiB" in table(2**30)
    assert "Paged state can leave the GPU for the host" in table(2**30).replace("\n  ", " ")


def _categories() -> tuple[str, ...]:
    from sweep.memory.prediction import CATEGORIES

    return CATEGORIES


def test_the_options_are_documented():
    assert {"device", "capability", "gpu_memory_gb", "out", "json"} == set(plan._options([]))
    assert (ROOT / "conf" / "plan.yaml").read_text().count("#") >= 5


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for a model whose terms the user has not accepted."""

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model is restricted")
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()
        thread.join()


def reasons(*overrides: str) -> list[str]:
    plains = [compose("model=llama3_8b", "task=generation", "data@task.data=scan_around_right", one, *overrides)
              for one in ("variant=lora_r8", "variant=lora_r16")]  # fmt: skip
    answers, _ = predictor.predict_all(plains, A100, {}, silent)
    return [answer.reason for answer in answers]


def test_a_gated_model_is_requested_once_and_the_error_says_what_to_do(hub: ThreadingHTTPServer):
    found = reasons()
    assert len(hub.asked) == 1
    assert len(set(found)) == 1
    assert "it is gated. Accept its terms on its page" in found[0]


def test_an_unreachable_hub_is_reported_within_seconds(hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch):
    hub.shutdown()
    hub.server_close()
    began = time.monotonic()
    found = reasons()
    assert time.monotonic() - began < 10
    assert "Check the name and the network" in found[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1 forbids a download: unset it" in reasons()[0]


@pytest.mark.parametrize(
    ("changed", "overrides", "words"),
    [
        ({}, ("train.use_liger_kernel=true",), "Liger's kernels run on a GPU only"),
        ({"model_type": "bloom"}, (), "use model.attention=eager"),
        ({"model_type": "gptj"}, ("model.attention=flash_attention_2",), "has FlashAttention but no sdpa kernel"),
    ],
)
def test_a_config_that_cannot_run_is_reported(changed: dict, overrides: tuple[str, ...], words: str, tmp_path: Path):
    config = parse(llama(tmp_path, "lora_r8", *overrides))
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA3_8B, **changed}))
    architecture = config.model.architecture()
    answer = predictor.answer(config, workload.declared(config, length=64, padded=False), A100, architecture)
    assert isinstance(answer, Unpredictable)
    assert words in answer.reason
