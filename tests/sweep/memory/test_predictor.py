"""Predicted memory, against the meter of real runs and against counts that follow from the config."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import compose

from benchmarks.memory import architectures, cpu
from benchmarks.memory.cpu import Cell
from sweep.config.schema import parse
from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.memory import CATEGORIES, Machine, Prediction, Unpredictable, predict, predictor, workload
from sweep.processes import isolated_call
from sweep.training_run import run_training

CPU = Machine(kind="cpu")
HOPPER = Machine(kind="cuda", capability=(9, 0))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:fan_in_fan_out is set")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small checkpoint of each architecture, of six layers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    smaller = {
        "llama": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "vocab_size": 4000},
        "gpt2": {"n_embd": 128, "n_layer": 6, "n_head": 4, "vocab_size": 4000},
        "distilbert": {"dim": 128, "n_layers": 6, "n_heads": 4, "hidden_dim": 512, "vocab_size": 4000},
    }
    for name, sizes in smaller.items():
        cpu.save_checkpoint(name, str(folder / name), **sizes)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    "cell",
    [
        Cell("llama", "fft", "autocast", True),
        Cell("llama", "qlora_r16", "fp32", False),
        Cell("gpt2", "lora_r8", "bf16", True),
        Cell("distilbert", "lora_r16", "fp32", False),
    ],
    ids=lambda cell: " ".join(map(str, cell)),
)
def test_the_cpu_meter_reads_what_was_predicted(cell: Cell, checkpoints: Path):
    """A subset of benchmarks/memory/cpu.py, on smaller models."""
    row = cpu.compare(cell, str(checkpoints / cell.architecture))
    assert row["predicted_bytes"] == pytest.approx(row["measured_bytes"], rel=1e-3)
    assert row["predicted_load_bytes"] == pytest.approx(row["measured_load_bytes"], rel=2e-2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "name", "variant"),
    [
        ("generation", "gemma3_text", "lora_r8"),  # a mask, since sequences are longer than its window
        ("generation", "qwen3_moe", "fft"),
        ("seq2seq", "t5", "lora_r8"),
        ("classification", "bert", "lora8bit_r16"),
    ],
)
def test_other_architectures_and_bases(task: str, name: str, variant: str, tmp_path: Path):
    """A subset of benchmarks/memory/architectures.py."""
    layers = {"num_layers": 2, "num_decoder_layers": 2} if name == "t5" else {"num_hidden_layers": 2}
    if name == "gemma3_text":
        layers["layer_types"] = ["sliding_attention", "full_attention"]
    architectures.save_checkpoint(task, name, str(tmp_path), **layers)
    config = architectures.run_config(task, Cell("", variant, "fp32", False), str(tmp_path))
    found = workload.declared(config, length=128, padded=False)
    answer = predictor.answer(config, found, CPU, config.model.architecture())
    measured = cpu.measure(config, found)
    assert isinstance(answer, Prediction), answer
    assert answer.tier == "trace"
    assert answer.allocated_bytes == pytest.approx(measured["memory/train_max_allocated_bytes"], rel=1e-3)


def run_on_the_cpu(plain: dict[str, Any], folder: str, report: object) -> dict[str, float]:
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED)
    ended = run_training(RunRequest(config=plain, record=record, folder=folder), silent)
    assert ended.outcome is Outcome.OK, ended.reason
    return dict(ended.measurements)


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "held"),
    [("fft", "fp32"), ("fft", "checkpoint"), ("bitfit", "fp32"), ("last_layer", "fp32"), ("ln_tuning", "fp32")],
)
def test_trained_weights_of_a_16_bit_checkpoint_are_predicted_in_their_type(variant: str, held: str, tmp_path: Path):
    """The whole run: the cast happens while loading, and each type has its own activations."""
    from checkpoints import llama
    from transformers import AutoModelForCausalLM

    biases = {"attention_bias": True, "mlp_bias": True, "hidden_size": 256, "num_hidden_layers": 6}
    folder = llama(tmp_path / "model", **biases)
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    (tmp_path / "run").mkdir()
    plain = compose(
        "model=pretrained", f"model.path={folder}", f"variant={variant}", "train.precision=bf16",
        f"train.trained_weights={held}", "train.max_length=128", "train.max_steps=3", "train.micro_batch_size=2",
        "train.eval_batch_size=2", "task.data.n_train=8", "task.data.n_validation=2", "task.max_new_tokens=4",
    )  # fmt: skip
    (found,) = predict([plain], CPU)
    measured = isolated_call.call(f"{__name__}:run_on_the_cpu", plain, str(tmp_path / "run"))
    assert found.tier == "trace", found
    assert found.allocated_bytes == pytest.approx(measured["memory/train_max_allocated_bytes"], rel=2e-3)
    assert found.load_bytes == pytest.approx(measured["memory/load_max_allocated_bytes"], rel=2e-2)


def traces_are_equal(plain: dict[str, Any], machine: Machine, report: object) -> tuple[bool, int]:
    """Whether four layers extended to all give the log that all layers give, event by event; and its length."""
    from sweep.memory.simulation import fake_model, layer_extrapolation, run_trace

    config = parse(plain)
    found = workload.find(config, machine)
    architecture = config.model.architecture()
    precision = machine.precision(config.train.precision)
    whole = run_trace.execute(config, found, machine, precision, architecture)
    short = run_trace.execute(config, found, machine, precision, fake_model.shallow(architecture))
    events, blocks = layer_extrapolation.extend(short.events, short.blocks, architecture.num_hidden_layers)
    expected = layer_extrapolation.in_order(whole.events, whole.blocks)
    answers = [
        [(e.size, e.layer, e.part, b[e.key].category) for e in log]
        for log, b in ((events, blocks), (expected, whole.blocks))
    ]
    return answers[0] == answers[1], len(events)


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "machine", "checkpointing"),
    [("qlora_r16", CPU, True), ("fft", HOPPER, False)],
    ids=lambda value: value.kind if isinstance(value, Machine) else str(value),
)
def test_four_layers_extended_are_the_trace_of_all_layers(
    variant: str, machine: Machine, checkpointing: bool, checkpoints: Path
):
    plain = config_of(
        "llama", checkpoints, f"variant={variant}", f"train.activation_checkpointing={str(checkpointing).lower()}",
        "model.dtype=bf16",
    )  # fmt: skip
    equal, events = isolated_call.call(f"{__name__}:traces_are_equal", plain, machine)
    assert equal
    assert events > 1000


def config_of(name: str, checkpoints: Path, *overrides: str) -> dict[str, Any]:
    return compose(
        "model=pretrained",
        f"model.path={checkpoints / name}",
        "train.micro_batch_size=2",
        "train.gradient_accumulation_steps=1",
        "train.max_length=64",
        "task.max_new_tokens=8",
        *overrides,
    )


@pytest.fixture(scope="module")
def predictions(checkpoints: Path) -> dict[str, Prediction]:
    """All in one call, as a study asks."""
    settings = {
        "fft": ["variant=fft", "train.max_length=8", "train.optimizer=adamw_torch"],
        "fft fused": ["variant=fft", "train.max_length=8"],
        "lora": ["variant=lora_r8"],
        "lora, another rate and seed": ["variant=lora_r8", "variant.learning_rate=1e-5", "seed=3"],
        "qlora": ["variant=qlora_r16"],
        "paged": ["variant=qlora_r16", "variant.r=1024"],
        "checkpointing": ["variant=lora_r8", "train.activation_checkpointing=true"],
        "wrong": ["variant=lora_r8", "variant.target_modules=[q_prj]"],
        "invalid": ["variant=lora_r8", "variant.r=0"],
    }
    found = predict([config_of("llama", checkpoints, *overrides) for overrides in settings.values()], HOPPER)
    return dict(zip(settings, found, strict=True))


@pytest.mark.long
def test_the_breakdown_sums_to_the_prediction(predictions: dict[str, Prediction]):
    for name in ("fft", "lora", "qlora", "checkpointing"):
        found = predictions[name]
        assert sum(found.breakdown.values()) == found.allocated_bytes
        assert set(found.breakdown) <= set(CATEGORIES)
        assert found.requested_bytes <= found.allocated_bytes <= found.reserved_bytes
        assert found.peak_at in ("forward", "backward", "optimizer")


@pytest.fixture(scope="module")
def shapes(checkpoints: Path) -> dict[str, list[int]]:
    """Of the weights of the small Llama: two of each, or one."""
    from safetensors import safe_open

    with safe_open(checkpoints / "llama" / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.long
def test_few_tokens_leave_weights_gradients_state_and_the_optimizer_s_temporary(
    predictions: dict[str, Prediction], shapes: dict[str, list[int]]
):
    """FFT in fp32 with AdamW: 4 bytes per parameter for weights, for gradients, for each moment; 4 more in a foreach
    step, none in a fused one."""
    weights = 4 * sum(math.prod(shape) for shape in shapes.values())
    found = predictions["fft"]
    assert found.peak_at == "optimizer"
    assert found.breakdown["trainable_weights"] == weights
    assert found.breakdown["gradients"] == weights
    assert found.breakdown["optimizer_state"] == 2 * weights
    assert found.breakdown["temporaries"] == pytest.approx(weights, rel=1e-3)
    assert found.allocated_bytes == pytest.approx(5 * weights + 64 * 2**20, rel=0.01)
    assert predictions["fft fused"].allocated_bytes == pytest.approx(4 * weights + 64 * 2**20, rel=0.01)


def test_adapters_and_packed_weights_follow_from_the_shapes(
    predictions: dict[str, Prediction], shapes: dict[str, list[int]]
):
    """LoRA: r·(in + out) in fp32 in addition to the whole base; QLoRA: half a byte per weight of a linear layer."""
    linear = [shape for name, shape in shapes.items() if "proj" in name]
    assert predictions["lora"].breakdown["trainable_weights"] == 4 * 8 * sum(map(sum, linear))
    assert predictions["lora"].breakdown["frozen_weights"] == 4 * sum(map(math.prod, shapes.values()))
    assert predictions["qlora"].breakdown["quantized_weights"] == sum(map(math.prod, linear)) // 2


def test_paged_state_is_predicted_for_all_layers(predictions: dict[str, Prediction], shapes: dict[str, list[int]]):
    """Two moments in fp32 for each adapter of at least 100,000 elements, of six layers of which four are executed."""
    linear = [shape for name, shape in shapes.items() if "proj" in name]
    adapters = [1024 * side for shape in linear for side in shape]
    assert predictions["paged"].paged_bytes == 8 * sum(size for size in adapters if size >= 100_000)
    assert predictions["paged"].breakdown["optimizer_state"] == 8 * sum(size for size in adapters if size < 100_000)
    assert predictions["fft"].paged_bytes == 0


def test_equal_settings_are_one_execution(predictions: dict[str, Prediction]):
    assert predictions["lora"] == predictions["lora, another rate and seed"]


def test_checkpointing_saves_activations(predictions: dict[str, Prediction]):
    with_it, without = predictions["checkpointing"].breakdown, predictions["lora"].breakdown
    assert with_it["activations"] < 0.5 * without["activations"]


def predicted_on_a_machine_with_gpus(plain: dict[str, Any], report: object) -> Prediction | Unpredictable:
    """As in the predictor's process on a machine with eight GPUs. Any use of one raises an error, in a CPU build."""
    from unittest import mock

    import torch

    with mock.patch.multiple(torch.cuda, is_available=lambda: True, device_count=lambda: 8):
        (found,), _ = predictor.predict_all([plain], HOPPER, {}, silent)
    return found


@pytest.mark.parametrize("setting", ["fft fused", "qlora"])
def test_a_gpu_of_this_machine_changes_no_prediction(
    setting: str, predictions: dict[str, Prediction], checkpoints: Path
):
    overrides = {"fft fused": ["variant=fft", "train.max_length=8"], "qlora": ["variant=qlora_r16"]}[setting]
    plain = config_of("llama", checkpoints, *overrides)
    found = isolated_call.call(f"{__name__}:predicted_on_a_machine_with_gpus", plain)
    assert found == predictions[setting]


def test_the_predictor_s_process_sees_no_gpu(monkeypatch: pytest.MonkeyPatch):
    """Otherwise a library could create a CUDA context in it: 0.5 GB of the GPU that a run trains on."""
    monkeypatch.setattr(isolated_call, "call", lambda *args, **options: ([options["env"]], {}))
    assert predict([], HOPPER) == [{"CUDA_VISIBLE_DEVICES": ""}]


def test_what_is_wrong_with_a_setting_is_its_answer(predictions: dict[str, Prediction]):
    assert isinstance(predictions["wrong"], Unpredictable)
    assert "'q_prj' matches no linear module" in predictions["wrong"].reason
    assert "variant.r = 0" in predictions["invalid"].reason


def test_a_config_alone_is_enough(checkpoints: Path, tmp_path: Path):
    """No weights, no tokenizer: the longest micro-batch is what train.max_length allows, and the prediction says so."""
    (tmp_path / "config.json").write_text((checkpoints / "llama" / "config.json").read_text())
    plain = compose("model=pretrained", f"model.path={tmp_path}", "variant=lora_r8", "train.max_length=96")
    (found,) = predict([plain], CPU)
    assert isinstance(found, Prediction)
    assert found.assumptions["longest_micro_batch"].startswith("8 × 96 tokens, with padding (assumed")
    assert found.eval_bytes > found.load_bytes
    assert Prediction(**json.loads(json.dumps(found.as_dict()))) == found


def test_a_prediction_whose_parts_do_not_sum_is_refused():
    with pytest.raises(ValueError, match="sums to 1 bytes"):
        Prediction(tier="trace", allocated_bytes=2, peak_at="forward", breakdown={"gradients": 1}, relative_band=0.01)


def test_layers_that_differ_are_not_extended():
    from transformers import LlamaConfig

    from sweep.memory.simulation.fake_model import shallow
    from sweep.memory.simulation.layer_extrapolation import Irregular

    assert shallow(LlamaConfig(num_hidden_layers=12)).num_hidden_layers == 4
    uneven = LlamaConfig(num_hidden_layers=12)
    uneven.layer_types = ["full_attention", "sliding_attention"] * 6
    with pytest.raises(Irregular, match="layer_types"):
        shallow(uneven)
