"""Which settings compete with the threshold, and so set the range of a cost curve; the others are marks at its edge."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from analysis.decision.verdict_words import MISSES

MANY = 14  # settings: up to here, all are in the picture
_WHISKERS = 3.0  # interquartile ranges: a cost further away is outside (Tukey's far out)
_ROOM = 0.14  # of the axes' height, around the points
_BAR = 2.0  # rooms that an interval may add
_LEAST_RANGE = 0.05  # of the cost: less would magnify differences that mean nothing
_BELOW = 0.25  # of the range of the scores: how far below them a failing setting is still shown


class View(NamedTuple):
    """The limits of both axes, and whether each setting is inside."""

    cost: tuple[float, float]
    score: tuple[float, float]
    inside: pd.Series


def view(marks: pd.DataFrame, score_threshold: float, higher_is_better: bool, more_is_better: bool, log: bool) -> View:
    """`marks` is the table of `cost_curve.data`.

    All settings are inside if they are few. Of many, those that may reach the threshold compete, and the selected and
    the best; the rest are inside if they lie among these. An interval may leave the picture, also that of the selected
    and of the best.
    """
    settings = marks[marks["kind"] == "setting"]
    chosen = settings.loc[_competing(settings, higher_is_better, more_is_better), "setting"]
    shown = marks[marks["setting"].isin(chosen) | (len(settings) <= MANY)]
    scores = shown.loc[shown["kind"] != "pruned", "score"].dropna()
    low, high = min(scores.min(), score_threshold), max(scores.max(), score_threshold)
    room = (high - low or abs(high) or 1.0) * _ROOM
    ends = [settings[column].fillna(settings["score"]) for column in ("score_low", "score_high")]
    must = settings["selected"].astype(bool) | settings["best"].astype(bool)
    low = max(low - _BAR * room, min(low, ends[0][must].min()))
    high = min(high + _BAR * room, max(high, ends[1][must].max()))
    limits = _cost_limits(shown["cost"].min(), shown["cost"].max(), log), (low - room, high + room)
    inside = settings["cost"].between(*limits[0]) & settings["score"].between(*limits[1])
    return View(*limits, inside)


def _cost_limits(least: float, most: float, log: bool) -> tuple[float, float]:
    if log:
        factor = (most / least) ** 0.12
        return least / factor, most * factor
    room = max((most - least) * (_ROOM + 0.02), (_LEAST_RANGE * most - (most - least)) / 2)
    return max(0.0, least - room), most + (room or 1.0)


def _competing(settings: pd.DataFrame, higher_is_better: bool, more_is_better: bool) -> pd.Series:
    if len(settings) <= MANY:
        return pd.Series(True, index=settings.index)
    must = settings["selected"].astype(bool) | settings["best"].astype(bool)
    competing = settings[must | (settings["verdict"] != MISSES)]
    reach = _BELOW * (competing["score"].max() - competing["score"].min())
    low, high = competing["score"].min(), competing["score"].max()
    low, high = (low - reach, high) if higher_is_better else (low, high + reach)
    first, third = competing["cost"].quantile(0.25), competing["cost"].quantile(0.75)
    far = _WHISKERS * (third - first)
    costs = settings["cost"] >= first - far if more_is_better else settings["cost"] <= third + far
    return must | (settings["score"].between(low, high) & costs)
