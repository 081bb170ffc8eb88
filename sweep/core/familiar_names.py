"""What people type from habit with other trainers, and the override that means it here."""

from __future__ import annotations

_KEYS = {
    "train.epochs": "num_train_epochs num_epochs epochs max_epochs",
    "train.max_steps": "max_steps num_steps total_steps",
    "train.micro_batch_size": "batch_size per_device_train_batch_size train_batch_size micro_batch_size",
    "train.eval_batch_size": "per_device_eval_batch_size eval_batch_size",
    "train.gradient_accumulation_steps": "gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "train.max_length": "max_length max_seq_length max_seq_len seq_length cutoff_len block_size model_max_length",
    "train.optimizer": "optim optimizer",
    "train.lr_scheduler_type": "scheduler lr_scheduler lr_scheduler_type",
    "train.warmup_ratio": "warmup warmup_ratio",
    "train.weight_decay": "weight_decay wd",
    "train.max_grad_norm": "max_grad_norm clip_grad gradient_clip_val",
    "train.label_smoothing": "label_smoothing label_smoothing_factor",
    "train.activation_checkpointing": "gradient_checkpointing activation_checkpointing",
    "train.eval_steps": "eval_steps eval_every",
    "train.precision": "precision mixed_precision",
    "train.devices_per_run": "devices_per_run gpus num_gpus nproc_per_node",
    "train.torch_compile": "torch_compile compile",
    "variant.learning_rate": "lr learning_rate",
    "variant.r": "r rank lora_r lora_rank",
    "variant.alpha": "alpha lora_alpha",
    "variant.dropout": "lora_dropout",
    "variant.target_modules": "target_modules lora_target_modules lora_target",
    "model.path": "model_name_or_path model_name model_id base_model pretrained_model_name_or_path",
    "task.score": "metric_for_best_model main_metric",
    "task.max_new_tokens": "max_new_tokens generation_max_length",
    "task.data.train": "train_file",
    "task.data.validation": "validation_file eval_file",
    "seed": "seeds random_seed",
    "study.name": "study_name run_name",
    "hydra.sweeper.n_trials": "n_trials num_trials",
    "hydra.sweeper.n_jobs": "n_jobs",
    "hydra.sweeper.storage": "storage",
    "hydra.sweep.dir": "output_dir",
}
_MEANT = {name: key for key, names in _KEYS.items() for name in names.split()}
_FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".gz")


def meant(key: str, value: str) -> str | None:
    """The line to type instead of the override `key=value`, which does not exist; None where nothing is known."""
    if key in ("data", "task.data", "data@task.data", "dataset", "dataset_name", "dataset_path"):
        return data_line(value)
    if key.startswith("data."):
        return f"data@task.data=files task.{key}={value}"
    if key == "model" or key.startswith("model/"):
        return f"model=pretrained model.path={value}"
    last = key.rpartition(".")[2]
    if last in ("load_in_4bit", "quantization"):
        return "variant=qlora_r16"
    if last in ("bf16", "fp16"):
        return f"train.precision={last}"
    own = _MEANT.get(last)
    return f"{own}={value}" if own is not None and own != key else None


def data_line(value: str) -> str:
    """How to name this file, or this data set of the Hub."""
    if value.endswith(_FILES):
        return f"data@task.data=files task.data.train={value}"
    return f"data@task.data=hub task.data.path={value}" if "/" in value else f"data@task.data={value}"
