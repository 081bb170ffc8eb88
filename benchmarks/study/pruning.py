"""Replays published learning curves through the dominance pruner: how much training it saves, and whether the picks
change.

    python -m benchmarks.study.pruning TABLE.json

TABLE is a JSON file of fine-tunings with `rows`, each with `status`, `test_accuracy`, `memory_reserved_max_bytes`,
`trainable_params` and a `curve` of {step, valid_accuracy}, from the results of PEFT's method_comparison. The curves are
measured on 50 validation items. The runs are replayed in 200 random orders, and with the smallest memory first.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import save
from sweep.study.pruning.dominance import Point, Run, dominated

THRESHOLDS = (0.99, 0.97, 0.95, 0.90)
VALIDATION_ITEMS = 50
ORDERS = 200


def read(path: Path) -> list[dict[str, Any]]:
    rows = [row for row in json.loads(path.read_text())["rows"] if row["status"] == "success" and row["curve"]]
    length = max(len(row["curve"]) for row in rows)
    return [row for row in rows if len(row["curve"]) == length]


def points(row: dict[str, Any]) -> list[Point]:
    found = []
    for evaluation in row["curve"]:
        p = evaluation["valid_accuracy"]
        error = max(math.sqrt(p * (1 - p) / (VALIDATION_ITEMS - 1)), 1 / VALIDATION_ITEMS)
        found.append(Point(evaluation["step"], p, error))
    return found


def picks(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """(memory, score) of the pick at each threshold. Settings that are equal in both count as the same."""
    best = max(row["test_accuracy"] for row in rows)
    found = []
    for threshold in THRESHOLDS:
        meets = [row for row in rows if row["test_accuracy"] >= threshold * best]
        pick = min(meets, key=lambda r: (r["memory_reserved_max_bytes"], -r["test_accuracy"], r["trainable_params"]))
        found.append((pick["memory_reserved_max_bytes"], pick["test_accuracy"]))
    return found


def replay(rows: Sequence[dict[str, Any]]) -> tuple[float, list[bool]]:
    """Replay the rows one after the other. Returns the fraction of evaluations (equal spans of training) that were
    needed, and whether each pick stayed the same."""
    ended: list[Run] = []
    survivors = []
    spent = total = 0
    for row in rows:
        curve, memory = points(row), row["memory_reserved_max_bytes"]
        stopped = len(curve)
        for count in range(1, len(curve)):
            if dominated(Run(row["experiment"], curve[:count], memory), ended):
                stopped = count
                break
        else:
            survivors.append(row)
        ended.append(Run(row["experiment"], curve[:stopped], memory))
        spent, total = spent + stopped, total + len(curve)
    return spent / total, [a == b for a, b in zip(picks(survivors), picks(rows), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path)
    rows = read(parser.parse_args().table)
    by_memory = sorted(rows, key=lambda row: row["memory_reserved_max_bytes"])
    share, same = replay(by_memory)
    shares, stayed = [], []
    for seed in range(ORDERS):
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        one, kept = replay(shuffled)
        shares.append(one)
        stayed.append(kept)
    results = {
        "runs": len(rows),
        "share_spent_smallest_memory_first": round(share, 4),
        "same_picks_smallest_memory_first": dict(zip(map(str, THRESHOLDS), same, strict=True)),
        "share_spent_random_order_mean": round(sum(shares) / ORDERS, 4),
        "share_spent_random_order_worst": round(max(shares), 4),
        "same_pick_share_random_order": {
            str(threshold): sum(kept[i] for kept in stayed) / ORDERS for i, threshold in enumerate(THRESHOLDS)
        },
        "every_pick_same_share_random_order": sum(map(all, stayed)) / ORDERS,
    }
    save("pruning_replay", results)


if __name__ == "__main__":
    main()
