"""Optimizers, schedules, callbacks and arguments of the user's own: checked before the first run, and constructed."""

from __future__ import annotations

import inspect
import tempfile
import typing
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sweep.core.construction import Construction
from sweep.core.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sweep.training.options import Train

# Parameters of schedules that depend on the length of training.
_STEPS = ("num_training_steps", "total_steps", "total_iters", "T_max")
_WARMUP = "num_warmup_steps"


def optimizer_class(optimizer: Construction, learning_rate: float) -> tuple[Any, dict[str, Any]]:
    """A class of torch.optim.Optimizer and its options, for the Trainer, which groups the parameters."""
    return optimizer.callable(), {"lr": learning_rate, **optimizer.options}


def schedule(
    wanted: Construction, optimizer: Any, num_training_steps: int, arguments: TrainingArguments | None = None
) -> Any:
    """A schedule of the learning rate. Where the class has a parameter for the number of steps, or of warm-up steps, it
    gets the run's, unless the config gives one."""
    known = {name: num_training_steps for name in _STEPS if wanted.accepts(name)}
    if wanted.accepts(_WARMUP) and arguments is not None:
        known[_WARMUP] = int(arguments.get_warmup_steps(num_training_steps))
    return wanted.callable()(optimizer, **{**known, **wanted.options})


def check_extensions(train: Train) -> None:
    """Import and construct what the config names, as far as that needs no model.

    Raises:
        UserError: where a class cannot be imported or is of another kind, or for an option that it does not have.
    """
    _check_arguments(train)
    _check_callbacks(train)
    if isinstance(train.optimizer, Construction):
        _require(train.optimizer, "train.optimizer", _is_optimizer, "a class of torch.optim.Optimizer")
    wanted = train.lr_scheduler_type
    if isinstance(wanted, Construction):
        _require(wanted, "train.lr_scheduler_type", callable, "a class or a function that gets the optimizer")
        if train.warmup_ratio and not wanted.accepts(_WARMUP):
            raise UserError(
                f"train.warmup_ratio = {train.warmup_ratio:g}: {wanted.target} has no parameter {_WARMUP}, and would "
                "not warm up; use train.warmup_ratio=0"
            )


def _check_arguments(train: Train) -> None:
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    for name, value in train.arguments.items():
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"train.arguments.{name} = {value}: {error.errors()[0]['msg']}") from error
    if train.arguments:
        with tempfile.TemporaryDirectory() as folder:
            try:
                TrainingArguments(output_dir=folder, report_to=[], **train.arguments)
            except (ValueError, TypeError, ImportError) as error:
                raise UserError(f"train.arguments: {first_line(error)}") from error


def _check_callbacks(train: Train) -> None:
    from transformers import TrainerCallback

    for index, make in enumerate(train.callbacks):
        key = f"train.callbacks[{index}]"
        _require(make, key, callable, "a class of transformers.TrainerCallback")
        try:
            made = make()
        except Exception as error:  # the code of its author runs here
            raise UserError(f"{key}: {make.target} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(made, TrainerCallback):
            raise UserError(f"{key}: {make.target} is not a transformers.TrainerCallback; derive the class from it")


def _require(wanted: Construction, key: str, is_right: Any, what: str) -> None:
    try:
        found = wanted.callable()
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if not is_right(found):
        raise UserError(f"{key}: {wanted.target} is not {what}")
    wanted.require_options(key)


def _is_optimizer(found: Any) -> bool:
    from torch.optim import Optimizer

    return inspect.isclass(found) and issubclass(found, Optimizer)
