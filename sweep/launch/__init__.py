"""A process of its own for every run, and the parent's half of a run."""
