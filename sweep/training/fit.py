"""Training: one set-up of the Hugging Face Trainer for all variants."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from transformers import PrinterCallback, TrainingArguments

from sweep.core.errors import UserError
from sweep.core.reporter import Reporter, silent
from sweep.meters import MemoryMeter
from sweep.runtime import precision, sharding
from sweep.training.batch_order import training_order
from sweep.training.early_stopping import EarlyStopping
from sweep.training.extensions import optimizer_class
from sweep.training.trainer import WeightedTrainer
from sweep.training.watcher import Evaluate, Fit, Watcher

if TYPE_CHECKING:
    from sweep.tasks import Encoded
    from sweep.training.options import Train

# The other ranks wait for the main one while it evaluates; after the default of half an hour, NCCL would end them. A
# rank that has died is noticed by the parent of all ranks.
_RANKS_WAIT_SECONDS = 7 * 24 * 3600


def fit(
    model: torch.nn.Module,
    examples: Sequence[Encoded],
    collate: Callable[[list[Encoded]], dict[str, torch.Tensor]],
    train: Train,
    *,
    learning_rate: float,
    seed: int,
    optimizer: str | None = None,
    is_causal: bool = True,
    meter: MemoryMeter | None = None,
    report: Reporter = silent,
    label: str = "training",
    evaluate: Evaluate | None = None,
    aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    higher_is_better: bool = True,
) -> Fit:
    """Train `model` in place for `train.max_steps` steps.

    The order of the examples depends on `seed` and on their lengths only, so that all variants see the same batches.
    The loss is the mean over the labels of the whole batch, for every division into micro-batches.

    Args:
        model: moved to the device by its caller, unless it is sharded.
        train: `max_steps` must be set.
        learning_rate: its highest value in the schedule.
        optimizer: the name that Transformers has for it, instead of a name in `train.optimizer`.
        report: receives loss and progress, and decides whether the run stops after an evaluation.
        evaluate: called every `train.eval_steps` steps; its time and memory are not measured.
        higher_is_better: whether a higher score is better, for `train.early_stopping_patience`.
        aside: gives the context of each such evaluation. Every rank enters it, also those that wait for the main one.

    Raises:
        Pruned: the report has a reason to stop.
        Diverged: the loss is NaN or infinite, or stays far above the loss of random guessing.
        UserError: one batch needs more examples than there are.
    """
    if train.batch_size > len(examples):
        raise UserError(
            f"train.micro_batch_size = {train.micro_batch_size} × gradient_accumulation_steps = "
            f"{train.gradient_accumulation_steps} needs {train.batch_size} examples for one batch; the data has "
            f"{len(examples)}. Lower one of them"
        )
    order = training_order([length(example) for example in examples], train, seed)
    on_gpu = train.sharded and torch.cuda.is_available()  # the model moves there later
    device_type = "cuda" if on_gpu else next(model.parameters()).device.type
    resolved = precision.resolve(train.precision, device_type)
    with tempfile.TemporaryDirectory(prefix="paretune-trainer-") as scratch:
        by_name = isinstance(train.optimizer, str)
        scheduled = isinstance(train.lr_scheduler_type, str)
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=train.max_steps,
            per_device_train_batch_size=train.micro_batch_size,
            gradient_accumulation_steps=train.gradient_accumulation_steps,
            learning_rate=learning_rate,
            lr_scheduler_type=train.lr_scheduler_type if scheduled else "constant",
            warmup_steps=math.ceil(train.warmup_ratio * train.max_steps),
            optim=(optimizer or train.optimizer) if by_name else "adamw_torch",
            adam_beta2=train.adam_beta2,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            bf16=resolved == "bf16",
            fp16=resolved == "fp16",
            activation_checkpointing=train.activation_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False} if train.activation_checkpointing else None,
            use_cpu=device_type == "cpu",
            ddp_find_unused_parameters=False,
            ddp_timeout=_RANKS_WAIT_SECONDS,
            seed=seed,
            data_seed=seed,
            train_sampling_strategy="sequential",
            torch_compile=train.torch_compile,
            use_liger_kernel=train.use_liger_kernel,
            dataloader_drop_last=True,
            dataloader_pin_memory=device_type == "cuda",
            remove_unused_columns=False,
            report_to=[],
            logging_strategy="steps",  # each step: the log has the gradient's norm
            logging_steps=1,
            save_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            **(sharding.arguments() if train.sharded else {}),
            **train.arguments,
        )
        if arguments.n_gpu > 1:
            raise UserError(
                f"the process of a run sees {arguments.n_gpu} GPUs, and the Trainer would split each batch over them: "
                "set CUDA_VISIBLE_DEVICES to one GPU; for several, train.devices_per_run"
            )
        others = [make() for make in train.callbacks]
        patience = train.early_stopping_patience
        stopping = EarlyStopping(patience, higher_is_better) if patience is not None else None
        watcher = Watcher(train, meter, report, label, evaluate, aside, stopping, others)
        trainer = WeightedTrainer(
            on_micro_batch=watcher.on_micro_batch,
            is_causal=is_causal,
            label_smoothing=train.label_smoothing,
            loss=train.loss,
            schedule=None if scheduled else train.lr_scheduler_type,
            optimizer_cls_and_kwargs=None if by_name else optimizer_class(train.optimizer, learning_rate),
            model=model,
            args=arguments,
            train_dataset=[examples[index] for index in order],
            data_collator=collate,
            callbacks=[watcher, *others],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            watcher.finish()
        # accelerate leaves its autocast on the forward of the outermost model. FFT generates with that model, and an
        # adapter with its base, which has no autocast: the variants would be evaluated in different precision.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    return watcher.result()


def length(example: Encoded) -> int:
    """Tokens of an example. An encoder-decoder's example has the tokens of both."""
    labels, ids = example["labels"], example["input_ids"]
    tokens = isinstance(labels, list) and not isinstance(labels[0], float)  # a list of numbers is one for each class
    return len(ids) + (len(labels) if tokens and len(labels) != len(ids) else 0)
