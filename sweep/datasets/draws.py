"""Seeded selections of rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence


def permutation(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def stratified(order: Sequence[int], labels: Sequence[Hashable] | None, count: int) -> list[int]:
    """The first `count` rows of `order`, with every label in its share of all rows (the largest remainders are rounded
    up), and at least one row of each label that has two. Without labels, the first `count` rows."""
    if labels is None:
        return list(order[:count])
    sizes = Counter(labels[index] for index in order)
    exact = {label: size * count / len(order) for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    ranked = sorted(exact, key=lambda label: (quotas[label] - exact[label], -sizes[label], str(label)))
    for label in ranked[: count - sum(quotas.values())]:
        quotas[label] += 1
    for label in ranked:
        most = max(quotas, key=lambda other: (quotas[other], str(other)))
        if quotas[label] == 0 and sizes[label] > 1 and quotas[most] > 1:
            quotas[label], quotas[most] = 1, quotas[most] - 1
    taken = []
    for index in order:
        if quotas[labels[index]] > 0:
            quotas[labels[index]] -= 1
            taken.append(index)
    return taken
