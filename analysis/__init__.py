"""From the runs of a study to its answer. Never imports torch; of sweep, only what knows nothing of training."""
