"""Which rows a data mix keeps: sources that are left out, and conditions on columns. Pure, keeps the order.

A condition that names a source or column which no row has is refused, because it would silently keep
nothing. How rows are weighted and cut to a number is in `mix.py`.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from rdagent_ft.data.rows import Row
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.data_mix import Condition, DataMix

_MAX_NAMES = 20


class Selected(NamedTuple):
    """The rows that are kept, in their order, and reason -> rows left out."""

    rows: list[Row]
    dropped: dict[str, int]


def select_rows(rows: Sequence[Row], mix: DataMix) -> Selected:
    """Return the rows that meet `exclude_sources` and `where`.

    Raises `RecipeError` for a source, or a column of a condition, that no row has.
    """
    check_names(rows, mix)
    dropped: Counter[str] = Counter()
    kept: list[Row] = []
    for row in rows:
        reason = _reason(row, mix)
        if reason is None:
            kept.append(row)
        else:
            dropped[reason] += 1
    return Selected(kept, dict(dropped))


def check_names(rows: Sequence[Row], mix: DataMix) -> None:
    """Raise `RecipeError` that lists every source and column of the mix which no row has."""
    sources = sorted({row.source for row in rows if row.source is not None})
    columns = sorted({name for row in rows for name in row.meta})
    problems = [
        *_unknown("data.exclude_sources", mix.exclude_sources, sources),
        *_unknown("data.source_weights", (entry.source for entry in mix.source_weights or ()), sources),
        *_unknown("data.source_caps", (entry.source for entry in mix.source_caps or ()), sources),
    ]
    for place, condition in enumerate(mix.where or ()):
        name = condition.field.removeprefix("meta.")
        if condition.field != "source" and name not in columns:
            key = f"data.where.{place}.field"
            known = [f"meta.{each}" for each in columns]
            problems.append(_unknown_name(key, condition.field, known, "column"))
    if mix.think_column is not None and mix.think_column not in columns:
        problems.append(_unknown_name("data.think_column", mix.think_column, columns, "column"))
    if problems:
        is_source = all(problem.problem_class == "data.unknown_source" for problem in problems)
        listed = ", ".join(sources[:_MAX_NAMES]) or "no sources"
        message = f"unknown data {'source' if is_source else 'source or column'}; the dataset has {listed}"
        raise RecipeError(message, problems=tuple(problems))


def meets(row: Row, condition: Condition) -> bool | None:
    """Return whether the row meets the condition; None where it has no such value to compare."""
    value = row.source if condition.field == "source" else row.meta.get(condition.field.removeprefix("meta."))
    if value is None:
        return None
    wanted = condition.value
    match condition.op:
        case "eq":
            return _same(value, wanted)
        case "ne":
            return not _same(value, wanted)
        case "in":
            return any(_same(value, each) for each in cast("tuple[Any, ...]", wanted))
        case "contains":
            if isinstance(value, list):
                return any(_same(each, wanted) for each in cast("list[Any]", value))
            return str(wanted) in value if isinstance(value, str) else None
        case "lt" | "gt":
            number, limit = _number(value), _number(wanted)
            if number is None or limit is None:
                return None
            return number < limit if condition.op == "lt" else number > limit


def _reason(row: Row, mix: DataMix) -> str | None:
    """Return why the row is left out, or None."""
    if row.source is not None and row.source in mix.exclude_sources:
        return f"source {row.source}"
    for condition in mix.where or ():
        is_met = meets(row, condition)
        if is_met is None:
            return f"where {condition.field}: no value to compare"
        if not is_met:
            return condition.words
    return None


def _same(value: Any, wanted: Any) -> bool:
    """Compare by value; a number also equals the text that spells it, as tables without types hold it."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, (int, float)):
        number = _number(value)
        return number is not None and number == wanted
    return bool(value == wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _unknown(key: str, names: Iterable[str], known: list[str]) -> list[Problem]:
    return [_unknown_name(key, name, known, "source") for name in names if name not in known]


def _unknown_name(key: str, name: str, known: list[str], kind: str) -> Problem:
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:_MAX_NAMES]) or "none"
    fix = f"did you mean {near[0]!r}?" if near else f"known {kind}s: {listed}"
    return Problem(key, name, f"no row has this {kind}", f"data.unknown_{kind}", fix)
