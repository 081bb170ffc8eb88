"""Which arguments of Transformers' TrainingArguments a config may set, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweep.core.construction import Construction
from sweep.core.errors import alternatives

# They neither change what is equal for all variants, nor what the meters rely on.
ALLOWED = (
    "adam_beta1", "adam_epsilon", "lr_scheduler_kwargs", "optim_args", "neftune_noise_alpha", "tf32",
    "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps", "liger_kernel_config", "full_determinism",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "ddp_backend", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
    "ddp_static_graph", "debug",
)  # fmt: skip

# The key that stands for an argument here.
OWN_KEYS = {
    "train.micro_batch_size": "per_device_train_batch_size",
    "train.gradient_accumulation_steps": "gradient_accumulation_steps",
    "train.epochs": "num_train_epochs",
    "train.max_steps": "max_steps",
    "variant.learning_rate": "learning_rate",
    "train.lr_scheduler_type": "lr_scheduler_type",
    "train.warmup_ratio": "warmup_steps",
    "train.optimizer": "optim optim_target_modules",
    "train.weight_decay": "weight_decay",
    "train.adam_beta2": "adam_beta2",
    "train.max_grad_norm": "max_grad_norm",
    "train.label_smoothing": "label_smoothing_factor",
    "train.precision": "bf16 fp16 bf16_full_eval fp16_full_eval",
    "train.activation_checkpointing": (
        "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs"
    ),
    "train.torch_compile": "torch_compile",
    "train.use_liger_kernel": "use_liger_kernel",
    "train.eval_steps": "eval_steps eval_strategy eval_delay eval_on_start do_eval",
    "train.eval_batch_size": "per_device_eval_batch_size eval_accumulation_steps batch_eval_metrics",
    "train.early_stopping_patience": "load_best_model_at_end metric_for_best_model greater_is_better",
    "train.group_by_length": "train_sampling_strategy length_column_name",
    "train.parallelism": "fsdp fsdp_config parallelism_config deepspeed ddp_find_unused_parameters ddp_timeout",
    "train.devices_per_run": "use_cpu local_rank accelerator_config",
    "seed": "seed data_seed",
    "tracking.also": "report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id",
    "task.metrics": "include_for_metrics prediction_loss_only eval_do_concat_batches eval_use_gather_object",
    "hydra.run.dir": "output_dir",
    "tracking.max_saved_weights_bytes": (
        "save_strategy save_steps save_only_model save_on_each_node save_total_limit enable_jit_checkpoint"
    ),
}
# Arguments without a key, by the reason.
REASONS = {
    "changes the batch of a variant that runs out of memory, and variants would not be comparable": (
        "auto_find_batch_size"
    ),
    "changes the mean over the labels of a batch, which is equal for every division into micro-batches": (
        "average_tokens_across_devices"
    ),
    "changes which examples make a batch, and all variants see the same batches": (
        "dataloader_drop_last dataloader_in_order remove_unused_columns label_names ignore_data_skip"
    ),
    "is set by the device": "dataloader_pin_memory",
    "is off in training: the cache of keys and values would count as memory of training": "use_cache",
    "belongs to the meters, which measure memory and tokens": "skip_memory_metrics include_num_input_tokens_seen",
    "belongs to the log of each step, by which divergence is found": (
        "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level "
        "log_level_replica disable_tqdm"
    ),
    "belongs to the Hub; export the selected run instead (python -m sweep.export)": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "belongs to a checkpoint; a study repeats a run that was interrupted": (
        "resume_from_checkpoint restore_callback_states_from_checkpoint"
    ),
    "belongs to transformers' own scripts": "do_train do_predict",
}
REFUSED = {
    **{name: f"is {key} here" for key, names in OWN_KEYS.items() for name in names.split()},
    **{name: reason for reason, names in REASONS.items() for name in names.split()},
}


def faults(arguments: Mapping[str, Any]) -> Iterator[str]:
    """A message for each argument that a config may not set."""
    for name in arguments:
        if name in REFUSED:
            yield f"{name} {REFUSED[name]}"
        elif name not in ALLOWED:
            yield f"{name} is no argument of TrainingArguments; {alternatives(name, ALLOWED)}"


def callback_faults(callbacks: Iterable[Construction]) -> Iterator[str]:
    """A message for each callback of transformers that cannot work here."""
    for callback in callbacks:
        if callback.target.rpartition(".")[2] == "EarlyStoppingCallback":
            yield (
                "EarlyStoppingCallback needs evaluations of the Trainer, and here the task evaluates; use "
                "train.early_stopping_patience and train.eval_steps"
            )
