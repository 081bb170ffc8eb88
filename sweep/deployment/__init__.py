"""From a finished run to a model that others can load: find the run, rebuild, write and score its model."""
