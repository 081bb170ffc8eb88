"""A chance in words: the verdict on whether a setting reaches the threshold."""

from __future__ import annotations

REACHES, PROBABLY, OPEN, PROBABLY_NOT, MISSES = "reaches it", "probably", "open", "probably not", "misses it"
SURE, LIKELY = 0.95, 0.8


def verdict_of(chance: float) -> str:
    """95% or more: reaches it; 80% or more: probably; above 20%: open; above 5%: probably not; else misses it."""
    for least, word in ((SURE, REACHES), (LIKELY, PROBABLY)):
        if chance >= least:
            return word
    for most, word in ((1 - SURE, MISSES), (1 - LIKELY, PROBABLY_NOT)):
        if chance <= most + 1e-12:
            return word
    return OPEN
