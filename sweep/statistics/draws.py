"""Draws of categories, for Gibbs samplers on grids."""

from __future__ import annotations

import numpy as np


def categories(log_weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index per row of the last axis, with a probability proportional to exp(log_weights)."""
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max(axis=-1, keepdims=True)), axis=-1)
    return (cumulative < rng.random(log_weights.shape[:-1])[..., None] * cumulative[..., -1:]).sum(axis=-1)
