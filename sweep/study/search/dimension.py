"""One searched key: its values, from Hydra's sweep syntax, and its Optuna distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override, RangeSweep, Transformer

from sweep.core.errors import UserError
from sweep.core.overrides import count_of_range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool | None
_LISTED = 100_000  # values of a range; a longer one is searched like an interval
MOST_SHOWN = 12  # values in a message


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched key. `values` are all its values, or None for an interval. Numbers go from `low` to `high`, both
    included, in steps of `step` in a range. `texts` are the values as they are written in an override."""

    key: str
    values: tuple[Value, ...] | None = None
    texts: Mapping[Value, str] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    whole: bool = False

    @classmethod
    def of(cls, override: Override) -> Dimension:
        """From a sweep override: choice, range (without its end, as in Hydra), interval, tags `log` and `int`.
        UserError if it has no value, or cannot be searched."""
        key = override.get_key_element()
        if override.is_interval_sweep():
            interval = override.value()
            low, high, log = interval.start, interval.end, "log" in interval.tags
            whole = "int" in interval.tags or (isinstance(low, int) and isinstance(high, int) and _cast(override))
            return cls.between(key, low, high, log=log, whole=whole, text=override.input_line)
        sweep = override.value()
        count = count_of_range(sweep) if isinstance(sweep, RangeSweep) else 0
        if count > _LISTED:
            return cls._of_long_range(override, sweep, count)
        shuffled = bool(getattr(sweep, "shuffle", False))
        values = list(override.sweep_iterator(transformer=Transformer.encode))
        # To iterate a second time over a shuffled sweep gives another order.
        texts = [cls.plain_text(v) for v in values] if shuffled else list(override.sweep_string_iterator())
        if not values:
            raise UserError(f"{override.input_line} has no value; name at least one")
        if isinstance(sweep, RangeSweep) and not shuffled and all(isinstance(value, int | float) for value in values):
            return cls._of_range(key, _exact(sweep, values))
        by_text = {text: v if isinstance(v, Value) else text for v, text in zip(values, texts, strict=True)}
        if len(set(by_text.values())) < len(by_text):  # 1 and true are equal in Python
            by_text = {text: text for text in by_text}
        return cls(key=key, values=tuple(by_text.values()), texts={value: text for text, value in by_text.items()})

    @classmethod
    def _of_long_range(cls, override: Override, sweep: RangeSweep, count: int) -> Dimension:
        """A range whose values are not listed: a sampler proposes them."""
        start, step = Decimal(str(sweep.start)), Decimal(str(sweep.step))
        low, high = sorted((start, start + (count - 1) * step))
        whole = all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step))
        number = int if whole else float
        key = override.get_key_element()
        return cls(key=key, low=number(low), high=number(high), step=float(abs(step)), whole=whole)

    @classmethod
    def _of_range(cls, key: str, values: list[Any]) -> Dimension:
        whole = all(isinstance(value, int) for value in values)
        ordered = sorted(values)
        step = float(Decimal(str(ordered[1])) - Decimal(str(ordered[0]))) if len(ordered) > 1 else 1.0
        texts = {value: cls.plain_text(value) for value in values}
        low, high = ordered[0], ordered[-1]
        return cls(key=key, values=tuple(values), texts=texts, low=low, high=high, step=step, whole=whole)

    @classmethod
    def between(
        cls, key: str, low: float, high: float, *, log: bool = False, whole: bool = False, text: str | None = None
    ) -> Dimension:
        """An interval that includes both ends. `text` is its text in the UserError about wrong ends."""
        text = text or f"{key} = {low} to {high}"
        if not low <= high:
            raise UserError(f"{text}: the lower end is above the upper end")
        if log and low <= 0:
            raise UserError(f"{text}: a logarithmic interval needs ends above 0")
        if not whole:
            return cls(key=key, low=float(low), high=float(high), log=log)
        low, high = int(low), int(high)
        values = tuple(range(low, high + 1)) if high - low < 1000 else None
        texts = {value: str(value) for value in values or ()}
        return cls(key=key, values=values, texts=texts, low=low, high=high, step=1, log=log, whole=True)

    @classmethod
    def described(cls, key: str, node: Mapping[str, Any]) -> Dimension:
        """From a mapping in the old form of hydra-optuna-sweeper: {type: float, low: 0, high: 1, log: true}. UserError
        if it has another form."""
        kind, choices = node.get("type"), node.get("choices")
        if kind == "categorical" and choices:
            return cls(key=key, values=tuple(choices), texts={v: cls.plain_text(v) for v in choices})
        if kind in ("int", "float") and node.get("low") is not None and node.get("high") is not None:
            low, high, step = node["low"], node["high"], node.get("step")
            if step is None or (kind == "int" and step == 1):
                return cls.between(key, low, high, log=bool(node.get("log")), whole=kind == "int")
            count = int((Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step)))
            number = int if kind == "int" else float
            return cls._of_range(key, [number(Decimal(str(low)) + i * Decimal(str(step))) for i in range(count + 1)])
        raise UserError(
            f"hydra.sweeper.params.{key} = {dict(node)}: write it as Hydra does, choice(…), range(…) or interval(…); "
            "or as {type: categorical, choices: […]}, {type: int|float, low: …, high: …, step: …, log: …}"
        )

    def __str__(self) -> str:
        """The key and its values, for a message."""
        if self.values is None:
            return f"{self.key} from {self.low:g} to {self.high:g}" + (" on a log scale" if self.log else "")
        texts = [self.texts.get(value, str(value)) for value in self.values]
        shown = texts if len(texts) <= MOST_SHOWN else [*texts[: MOST_SHOWN - 2], "…", texts[-1]]
        return f"{self.key} = {', '.join(shown)}"

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution for Optuna. Its high end is the last value of the range: Hydra excludes the written end."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.low is None:
            return CategoricalDistribution(self.values or ())
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=1 if self.log else int(self.step))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step if not self.log else None)

    @property
    def ends(self) -> tuple[Value, ...]:
        """All choices; for numbers, the smallest and the largest."""
        if self.low is None:
            return self.values or ()
        return tuple(dict.fromkeys((self.low, self.high)))

    def contains(self, value: Any) -> bool:
        """Whether the search could propose this value."""
        if self.values is not None:
            return value in self.values
        return isinstance(value, int | float) and self.low <= value <= self.high

    def exact(self, value: Value) -> Value:
        """The listed number that a sampler means: Optuna adds steps up, and 0.009 becomes 0.009000000000000001."""
        if self.low is None or not self.values or value in self.values:
            return value
        return min(self.values, key=lambda listed: abs(listed - value))

    def text(self, value: Value) -> str:
        """A value's text in an override."""
        return self.texts.get(value) or self.plain_text(value)

    @staticmethod
    def plain_text(value: Value) -> str:
        if value is None:
            return "null"
        return str(value).lower() if isinstance(value, bool) else str(value)


def _cast(override: Override) -> bool:
    """Whether the override is `int(interval(…))`. Hydra converts only the ends, and 1 and 5 are integers without it."""
    return "int(" in str(override.input_line).replace(" ", "")


def _exact(sweep: RangeSweep, values: list[Any]) -> list[Any]:
    """The numbers of a range in decimal arithmetic. Hydra adds the step up, with its rounding errors."""
    if not all(isinstance(value, float) for value in values):
        return values
    start, step = Decimal(str(sweep.start)), Decimal(str(sweep.step))
    return [float(start + i * step) for i in range(len(values))]
