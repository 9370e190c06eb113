"""Old and foreign names of trainer keys: which key is meant, and what to do with it.

An LLM writes `warmup_ratio` and `max_seq_length` from memory in most configs; both are hard errors
today. This table mends them without asking an LLM, and every rename is shown, never silent. The
table is data (`renames.yaml`); recipe field names of other tools stand there as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml

from rdagent_ft.recipe.catalogue import TrainerKey
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.values import Frozen


class Renamed(Frozen):
    """A key that now has another name. `neutral`: the value keeps its meaning."""

    old: str
    new: str
    neutral: bool = False
    why: str = ""


class Removed(Frozen):
    """A key without successor. `neutral`: dropping it changes nothing."""

    old: str
    fix: str
    neutral: bool = False


class RenameTable(Frozen):
    """All entries for one trainer.

    Attributes:
        renamed, removed: entries by old name.
        deprecated: keys that still parse but should go when they are true.
        values: key -> old value -> the value that means the same now.
    """

    renamed: dict[str, Renamed]
    removed: dict[str, Removed]
    deprecated: dict[str, Removed]
    values: dict[str, dict[str, str]]


@lru_cache(maxsize=1)
def _table_file() -> dict[str, Any]:
    path = Path(__file__).resolve().parent / "renames.yaml"
    return cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))


@lru_cache(maxsize=1)
def load_renames() -> RenameTable:
    """Return the table for TRL."""
    part: dict[str, Any] = _table_file()["trl"]
    renamed = [Renamed.model_validate(entry) for entry in part["renamed"]]
    removed = [Removed.model_validate(entry) for entry in part["removed"]]
    deprecated = [Removed.model_validate(entry) for entry in part["deprecated"]]
    return RenameTable(
        renamed={entry.old: entry for entry in renamed},
        removed={entry.old: entry for entry in removed},
        deprecated={entry.old: entry for entry in deprecated},
        values=part["values"],
    )


@lru_cache(maxsize=1)
def recipe_aliases() -> Mapping[str, str]:
    """Return field names of other tools -> path inside a recipe's stage, adapter or reward."""
    return cast("dict[str, str]", _table_file()["recipe"])


def check_name(key: str, values: Mapping[str, Any], known: Mapping[str, TrainerKey]) -> Finding | None:
    """Return a finding when `key` is an old, removed or deprecated name, else None.

    Args:
        key: a key of the config.
        values: the whole config.
        known: keys of the method.
    """
    table = load_renames()
    value = values[key]
    if key in table.deprecated and key in known:
        entry = table.deprecated[key]
        if value in (False, None):
            return None
        return finding(key, shown(value), "is deprecated in TRL 1.16", "config.renamed_key", entry.fix)
    if key in table.renamed and table.renamed[key].new in known:
        return _renamed(table.renamed[key], values)
    if key in known:
        return None
    if key in table.removed:
        return _removed(table.removed[key], value)
    return None


def _renamed(entry: Renamed, values: Mapping[str, Any]) -> Finding:
    value = values[entry.old]
    why = f" ({entry.why})" if entry.why else ""
    rule = f"is now called `{entry.new}`{why}"
    if entry.new in values:
        edits = (Edit(action="drop", key=entry.old),) if values[entry.new] == value else ()
        fix = f"keep only `{entry.new}`, which is set as well"
        return finding(entry.old, shown(value), rule, "config.renamed_key", fix, *edits)
    edits = (
        (Edit(action="rename", key=entry.old, to=entry.new, value=value),)
        if entry.neutral and _keeps_meaning(entry, value)
        else ()
    )
    fix = f"write `{entry.new}: {_as_written(entry.new, value)}`" if entry.neutral else f"write `{entry.new}`"
    return finding(
        entry.old, shown(value), rule, "config.renamed_key", fix + ("" if entry.neutral else why), *edits
    )


def _as_written(key: str, value: Any) -> str:
    """Return a value as YAML; an unquoted `no` was read as false and must be quoted."""
    if value is False and key.endswith("_strategy"):
        return '"no"'
    return value if isinstance(value, str) else json.dumps(shown(value))


def _keeps_meaning(entry: Renamed, value: Any) -> bool:
    """A ratio of 1 or more would turn into a number of steps, so it is left to the person."""
    if entry.old != "warmup_ratio":
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _removed(entry: Removed, value: Any) -> Finding:
    edits: tuple[Edit, ...] = (Edit(action="drop", key=entry.old),) if entry.neutral else ()
    if entry.old == "group_by_length":
        edits = _switch(entry.old, value, "train_sampling_strategy", "group_by_length")
    elif entry.old == "adafactor":
        edits = _switch(entry.old, value, "optim", "adafactor")
    return finding(
        entry.old, shown(value), "no longer exists in TRL 1.16 with transformers 5", "config.removed_key",
        entry.fix, *edits,
    )  # fmt: skip


def _switch(old: str, value: Any, new: str, new_value: str) -> tuple[Edit, ...]:
    """Return edits for a switch that became a choice of another key."""
    if value is True:
        return (Edit(action="rename", key=old, to=new, value=new_value),)
    return (Edit(action="drop", key=old),) if value is False else ()
