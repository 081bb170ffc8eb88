"""The keys of a run's measurements and facts, each with its unit and its meaning."""

from __future__ import annotations

import re
from typing import NamedTuple

SCORE = "score"
PEAK_MEMORY_BYTES = "peak_memory_bytes"
MAX_MEMORY_ALLOCATED = "max_memory_allocated"
PAGED_BYTES = "memory/train_paged_bytes"
TOKENS_PER_SECOND = "tokens_per_second"
TRAIN_SECONDS = "train_seconds"
ENERGY_JOULES = "energy_joules"
TOTAL_PARAMS = "total_params"
TRAINABLE_PARAMS = "trainable_params"
ADAPTED_FRACTION = "base/adapted_fraction"
QUANTIZED_FRACTION = "base/quantized_fraction"
LOSS_BY_STEP = "train/loss"
SCORE_BY_STEP = "eval/score"
TRAINED_BYTES = "weights/trained_bytes"
SAVED_BYTES = "weights/saved_bytes"


class Measurement(NamedTuple):
    """One key, or a pattern of keys: a part in angle brackets, such as `<phase>`, stands for any name."""

    key: str
    unit: str
    meaning: str


# A phase is load, train or eval. Where two patterns match a key, the first one is meant.
MEASUREMENTS = tuple(
    Measurement(*row)
    for row in (
        (SCORE, "as the metric", "Primary validation metric. A pruned run has its last score."),
        (PEAK_MEMORY_BYTES, "bytes", "Peak of training, allocated and paged: what decides by default."),
        (MAX_MEMORY_ALLOCATED, "bytes", "Peak of the memory that PyTorch allocates in the train phase."),
        (PAGED_BYTES, "bytes", "Optimizer state in managed memory, which PyTorch does not allocate."),
        (TOKENS_PER_SECOND, "tokens/s", "Throughput of training without padding tokens, first steps and evaluation."),
        (TRAIN_SECONDS, "s", "Wall time of all optimizer steps, without evaluation and data preparation."),
        (ENERGY_JOULES, "J", "Energy of the train phase, summed over the GPUs of the run."),
        (TOTAL_PARAMS, "count", "All parameters. A 4-bit weight counts its elements, not its packed bytes."),
        (TRAINABLE_PARAMS, "count", "Parameters that train."),
        (ADAPTED_FRACTION, "fraction", "Share of the weights of the blocks that an adapter changes."),
        (QUANTIZED_FRACTION, "fraction", "Share of the weights of the blocks that is held in 4 or 8 bits."),
        ("memory/sum_over_ranks_<figure>", "bytes", "Sum of a memory figure over the ranks of a run on several GPUs."),
        ("memory/<phase>_max_allocated_bytes", "bytes", "Peak of allocated memory in the phase."),
        ("memory/<phase>_max_reserved_bytes", "bytes", "Peak of the memory that PyTorch's CUDA allocator holds."),
        ("memory/<phase>_max_requested_bytes", "bytes", "Peak of requested memory: allocated without rounding."),
        ("memory/<phase>_end_allocated_bytes", "bytes", "Allocated memory at the end of the phase."),
        ("memory/<phase>_device_used_bytes", "bytes", "Memory in use on the device at the end of the phase, by NVML."),
        ("memory/<phase>_others_bytes", "bytes", "Memory of other processes on the device, if it is above 1 GiB."),
        ("memory/<phase>_host_rss_bytes", "bytes", "Peak of the process's resident memory on the CPU."),
        ("memory/<phase>_metered_windows", "count", "Windows of the phase in which the CPU meter was on."),
        ("memory/<phase>_growth_bytes_per_batch", "bytes", "Least growth of live memory per evaluation batch."),
        ("memory/train_growth_bytes_per_step", "bytes", "Growth of live memory per optimizer step; 0 without a leak."),
        ("memory/alloc_retries", "count", "Times that the CUDA allocator freed its cache to serve a request."),
        ("memory/capacity_bytes", "bytes", "Memory of the device."),
        ("memory/preexisting_bytes", "bytes", "Memory that other processes held on the devices before the run."),
        ("memory/predicted_bytes", "bytes", "Prediction of max_memory_allocated."),
        ("memory/predicted_paged_bytes", "bytes", "Prediction of memory/train_paged_bytes."),
        ("memory/predicted_reserved_bytes", "bytes", "Prediction of memory/train_max_reserved_bytes."),
        ("memory/prediction_error", "fraction", "predicted / measured - 1: 0.01 is one percent too high."),
        ("memory/breakdown/<category>_bytes", "bytes", "Part of the predicted peak, such as gradients."),
        ("memory/oom_live_<category>_bytes", "bytes", "Live memory of a category when memory ran out."),
        ("memory/oom_requested_bytes", "bytes", "The request that failed when memory ran out."),
        ("memory/oom_allocated_bytes", "bytes", "Allocated memory when memory ran out."),
        ("memory/oom_device_free_bytes", "bytes", "Free memory on the device when memory ran out."),
        ("memory/oom_others_bytes", "bytes", "Memory of other processes when memory ran out, if above 1 GiB."),
        (SCORE_BY_STEP, "as the metric", "Score of evaluations during training, by step."),
        ("eval/examples", "count", "Validation examples."),
        ("eval/majority_baseline", "as the metric", "Score of the most frequent reference as every answer."),
        ("eval/distinct_predictions", "count", "Predictions that differ from each other."),
        ("eval/off_task_loss", "nats/token", "Loss on texts outside the task after training."),
        ("eval/off_task_loss_increase", "nats/token", "How much training increased eval/off_task_loss."),
        ("eval/<metric>", "as the metric", "Value of a metric on the validation examples; f1/… is of one label."),
        (LOSS_BY_STEP, "nats", "Training loss, by step."),
        ("train/final_loss", "nats", "Mean training loss of the last tenth of the steps."),
        ("train/first_loss", "nats", "Mean training loss of the first quarter of the steps."),
        ("train/last_loss", "nats", "Mean training loss of the last quarter of the steps."),
        ("train/loss_change_stderr", "nats", "Standard error of train/last_loss - train/first_loss."),
        (
            "train/changed_weights_fraction",
            "fraction",
            "Share of the weights trained in 16 bits that changed; sampled.",
        ),
        ("train/steps", "count", "Optimizer steps."),
        ("train/planned_steps", "count", "Optimizer steps that the config asks for, where training stopped earlier."),
        ("train/tokens", "count", "Tokens in training, without padding."),
        ("data/train_examples", "count", "Training examples."),
        ("data/dropped_examples", "count", "Examples without any token to learn after truncation; they are left out."),
        ("data/truncated_examples", "count", "Training examples that were longer than train.max_length."),
        ("data/truncated_fraction", "fraction", "Truncated examples among the training examples."),
        ("data/contaminated_fraction", "fraction", "Validation examples that are also training examples."),
        ("data/unseen_label_fraction", "fraction", "Validation examples whose label no training example has."),
        ("data/validation_truncated_examples", "count", "Validation examples that were too long."),
        ("time/<phase>_seconds", "s", "Wall time of the phase."),
        (TRAINED_BYTES, "bytes", "Size of the parameters that train, in the precision of training."),
        (SAVED_BYTES, "bytes", "Size on disk of the trained weights that are kept with the run."),
        ("export/score", "as the metric", "Validation score of the exported model."),
        ("export/score_drop", "as the metric", "How much worse the exported model scores than the run."),
        ("test/<metric>", "as the metric", "Value of a metric of the exported model on the test split."),
    )
)

# `Record.facts`: text that MLflow keeps as tags.
FACTS = tuple(
    Measurement(key, "text", meaning)
    for key, meaning in (
        ("metric", "Name of the primary metric."),
        ("direction", "maximize or minimize: whether a higher score is better."),
        ("device", "Kind of the device."),
        ("capability", "Compute capability of the GPU, such as 9.0."),
        ("ranks", "Processes of a run on several GPUs."),
        ("commit", "Commit of this program; +changes if files differ from the commit."),
        ("command", "Command line that started the run, credentials masked."),
        ("gpus", "UUIDs of the GPUs that the run used."),
        ("version.<library>", "Version of an installed library, and on a GPU of CUDA, cuDNN and the driver."),
        ("environment.<variable>", "Environment variable that changes figures of a GPU, such as PYTORCH_ALLOC_CONF."),
        ("conditions", "Everything that the study holds fixed, as JSON."),
        ("setting_digest", "Digest of the setting: two runs with one digest are replicates."),
        ("learning_rate_multiplier", "Factor on the learning rate of the variant."),
        ("coordinator", "Process that started the run: host, process id and start time."),
        ("memory_source", "How memory was measured: by CUDA's allocator, or by live tensors on the CPU."),
        ("memory_steps", "Optimizer steps that the memory meter watched."),
        ("memory_at_oom", "Why live memory was read after the out-of-memory error and not during it."),
        ("memory_prediction", "Method, error band and assumptions of the memory prediction."),
        ("energy_source", "How energy was measured, or why it was not."),
        ("launched", "false if the predicted memory was too large and the run was not started."),
        ("exit_kind", "crashed if the run's process ended without a result."),
        ("suggestions", "What to change after the run ran out of memory or diverged."),
        ("warnings", "Reasons to doubt the score."),
        ("corpus.<metric>", "Class and options of a corpus metric, as JSON: the analysis resamples with it."),
        ("signature.<metric>", "Version and options of sacrebleu for BLEU and chrF."),
    )
)


def matches(key: str, table: tuple[Measurement, ...] = MEASUREMENTS) -> Measurement | None:
    """The row of the table that describes a key, or None."""
    return next((row for row in table if re.fullmatch(re.sub("<[a-z]+>", ".+", row.key), key)), None)
