"""The names of a run's files, as they stand in its folder and among the artifacts of its MLflow run."""

CONFIG_FILE = "config.yaml"  # the composed config
EXAMPLES_FILE = "validation_examples.parquet"  # one row per validation example
TRACEBACK_FILE = "traceback.txt"
LOG_FILE = "run.log"
TIMELINE_FILE = "memory_timeline.csv"
SNAPSHOT_FILE = "oom_snapshot.pickle"
WEIGHTS_FOLDER = "checkpoint"  # what was trained: an adapter, or the parameters themselves
