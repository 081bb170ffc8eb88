"""Extensions outside of the repository: one file and one YAML each, no edit of an existing file, a real run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import Program, compose

from analysis.__main__ import validate
from analysis.loading.mlflow_store import StudyReader
from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.models.scan_llama import build_tokenizer

FILES = {
    "my_extension/__init__.py": "",
    "my_extension/variant.py": '''
from dataclasses import dataclass

from sweep.variants import Variant


@dataclass(frozen=True, kw_only=True)
class HeadOnly(Variant):
    """Only the output head trains."""

    def wrap(self, model, task_type, activation_checkpointing):
        model.requires_grad_(False)
        model.get_output_embeddings().requires_grad_(True)
        return model
''',
    "my_extension/data.py": '''
from dataclasses import dataclass

from sweep.datasets import Dataset, Splits


@dataclass(frozen=True, kw_only=True)
class Walks(Dataset):
    """Commands to walk some times."""

    count: int

    def load(self):
        examples = [
            {"prompt": f"walk {word} =>", "response": " ".join(["I_WALK"] * times)}
            for word, times in (("twice", 2), ("thrice", 3)) for _ in range(self.count)
        ]
        return Splits(train=examples, validation=examples[:: self.count])
''',
    "my_extension/task.py": '''
from dataclasses import dataclass

from sweep.tasks.generation import Generation


@dataclass(frozen=True, kw_only=True)
class FirstWord(Generation):
    """Only the first word of each response counts."""

    def bind(self, splits):
        def cut(examples):
            return [{**example, "response": example["response"].split()[0]} for example in examples]

        return super().bind(splits._replace(train=cut(splits.train), validation=cut(splits.validation)))
''',
    "my_extension/metric.py": '''
from dataclasses import dataclass

from sweep.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Longer(Metric):
    """1 where the prediction has more words than the reference."""

    def per_example(self, predictions, references):
        return [float(len(got.split()) > len(want.split())) for got, want in zip(predictions, references, strict=True)]
''',
    "my_extension/model.py": '''
from dataclasses import dataclass
from pathlib import Path

from sweep.models import Model


@dataclass(frozen=True, kw_only=True)
class Untrained(Model):
    """A Llama with random weights, written to `folder` by the first run."""

    folder: str

    def prepare(self, report):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from sweep.models.scan_llama import build_tokenizer

        if not Path(self.folder).exists():
            torch.manual_seed(0)
            tokenizer = build_tokenizer()
            sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
            LlamaForCausalLM(config).save_pretrained(self.folder)
            tokenizer.save_pretrained(self.folder)
        return {"model_revision": "random, seed 0"}

    def location(self):
        return self.folder, None
''',
    "my_extension/meter.py": '''
import time
from dataclasses import dataclass

from sweep.meters import PhaseMeter


@dataclass(frozen=True, kw_only=True)
class ProcessorTime(PhaseMeter):
    """Processor time of all threads."""

    def start(self, phase):
        before = time.process_time()
        return lambda: {f"time/{phase}_cpu_seconds": time.process_time() - before}
''',
    "my_extension/cpu_time.py": '''
from matplotlib.figure import Figure


def data(report):
    """Processor time of training, by run."""
    return report.runs[["setting", "time/train_cpu_seconds"]].dropna()


def draw(data):
    figure = Figure()
    figure.subplots().bar(data["setting"], data["time/train_cpu_seconds"])
    return figure
''',
    "my_extension/training.py": '''
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainerCallback

from sweep.losses import Loss


class Diary(TrainerCallback):
    """Writes the score of each evaluation and the number of steps into a file."""

    def __init__(self, file):
        self.file = Path(file)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        with self.file.open("a") as out:
            out.write(f"{state.global_step} {metrics['eval_score']}\\n")

    def on_train_end(self, args, state, control, **kwargs):
        rate = state.log_history[0]["learning_rate"]
        with self.file.open("a") as out:
            out.write(f"end {state.global_step} {args.adam_beta1} {rate}\\n")


@dataclass(frozen=True, kw_only=True)
class Bounded(Loss):
    """1 - p of each label: a label that is missed counts at most 1."""

    def per_label(self, logits, labels):
        loss = 1 - torch.exp(-torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
        return loss * (labels >= 0)


def halved(optimizer, num_training_steps):
    """Half the rate from the start on."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
''',
    "my_conf/loss/bounded.yaml": "_target_: my_extension.training.Bounded\n",
    "my_conf/variant/head_only.yaml": "_target_: my_extension.variant.HeadOnly\nname: head_only\nlearning_rate: 1e-2\n",
    "my_conf/data/walks.yaml": "_target_: my_extension.data.Walks\ncount: 8\n",
    "my_conf/metric/longer.yaml": "_target_: my_extension.metric.Longer\n",
    "my_conf/task/first_word.yaml": """defaults:
  - /data@data: walks
  - /metric@metrics.longer: longer
  - /metric@metrics.exact_match: exact_match
_target_: my_extension.task.FirstWord
score: exact_match
max_new_tokens: 4
""",
    "my_conf/model/untrained.yaml": "_target_: my_extension.model.Untrained\nfolder: ???\n",
    "my_conf/meter/cpu_time.yaml": "# @package meters.extra.cpu_time\n_target_: my_extension.meter.ProcessorTime\n",
}


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A folder with a package and its YAML files."""
    for name, content in FILES.items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path / "mine"


@pytest.mark.long
@pytest.mark.slow
def test_extensions_of_every_kind_run_without_an_edit(extension: Path, program: Program, tmp_path: Path):
    path = {"PYTHONPATH": os.pathsep.join([str(extension), *sys.path])}
    ran = program(
        "sweep", "-m", "--config-dir", str(extension / "my_conf"),
        "model=untrained", f"model.folder={tmp_path / 'model'}", "task=first_word", "variant=head_only",
        "+meter=cpu_time", "train.max_steps=20", "train.micro_batch_size=4", "train.max_length=32", "study.name=mine",
        "study.predict_memory=false", "seed=0", "+loss@train.loss=bounded", "train.eval_steps=5",
        f"train.callbacks=[{{_target_: my_extension.training.Diary, file: {tmp_path / 'diary'}}}]",
        "train.optimizer={_target_: torch.optim.SGD, momentum: 0.5}",
        "train.lr_scheduler_type={_target_: my_extension.training.halved}", "train.warmup_ratio=0",
        "+train.arguments.adam_beta1=0.8", env=path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [run] = StudyReader(f"sqlite:///{tmp_path / 'mlflow.db'}", "paretune").study("mine").runs.to_dict("records")
    assert run["outcome"] == "ok", run["reason"]
    assert run["trainable_params"] == 64 * len(build_tokenizer())  # the head: hidden size × vocabulary
    assert run["eval/exact_match"] == run["score"]
    assert run["eval/longer"] in (0.0, 0.5, 1.0)
    assert run["data/train_examples"] == 16
    assert run["time/train_cpu_seconds"] > 0
    assert run["time/load_cpu_seconds"] > 0
    assert 0 < run["train/final_loss"] < 1
    evaluated = (tmp_path / "diary").read_text().splitlines()
    assert [line.split()[0] for line in evaluated] == ["5", "10", "15", "end"]
    assert evaluated[-1] == "end 20 0.8 0.005"
    conditions = json.loads(run["conditions"])
    assert conditions["train.optimizer.momentum"] == "0.5"
    own = {"data", "metric", "model", "task", "training"}  # the variant's code is in the digest of the setting
    assert {key for key in conditions if key.startswith("code.")} == {f"code.my_extension.{name}" for name in own}
    drawn = program("analysis", "study=mine", "margin=0.01", "charts=[my_extension.cpu_time]", env=path)
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert (tmp_path / "reports" / "mine" / "cpu_time.png").read_bytes().startswith(b"\x89PNG")
    assert 'id="cpu_time"' in (tmp_path / "reports" / "mine" / "report.html").read_text()


def test_a_class_that_is_not_a_meter_is_refused():
    plain = compose()
    plain["meters"] = {**plain["meters"], "extra": {"mine": {"_target_": "sweep.metrics.accuracy.Accuracy"}}}
    with pytest.raises(ConfigError, match=r"meters\.extra\.mine\._target_.*is not a PhaseMeter"):
        parse(plain)


@pytest.mark.parametrize(
    ("charts", "message"),
    [
        ("cpu_time", "must be a list of modules"),
        ("[no_such_module]", "cannot be imported"),
        ("[json]", "has no function data and no function draw"),
    ],
)
def test_a_module_that_is_not_a_chart_is_a_fault(charts: str, message: str):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from sweep.core.paths import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose(
            "analysis", overrides=["study=mine", "tracking.uri=sqlite:///a.db", f"charts={charts}"]
        )
    [fault] = [fault for fault in validate(composed, multirun=False) if fault.key == "charts"]
    assert message in fault.message
