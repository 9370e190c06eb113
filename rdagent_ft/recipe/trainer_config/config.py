"""A trainer config as rules read it: the file's value where one stands, else the trainer's default.

The trainer's own parser turns text into numbers and switches for top-level keys, so `2e-4` (text in
YAML 1.1) counts as a number here too. Wrong types are reported in `key_types.py`; the readers below
answer None for them, so that one mistake gives one problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rdagent_ft.recipe.catalogue import Method, TrainerKey

TRUE_TEXT = frozenset({"yes", "true", "t", "y", "1"})
FALSE_TEXT = frozenset({"no", "false", "f", "n", "0"})


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """One config under judgement.

    Attributes:
        method: what the config trains.
        values: the file's top-level keys.
        keys: every key that the method knows.
        folder: folder of the file, for paths in it; None when there is no file.
    """

    method: Method
    values: Mapping[str, Any]
    keys: Mapping[str, TrainerKey]
    folder: Path | None = None

    def given(self, key: str) -> bool:
        """Whether the file sets `key` to something."""
        return self.values.get(key) is not None

    def value(self, key: str) -> Any:
        """Return the file's value, else the trainer's default, else None."""
        if key in self.values:
            return self.values[key]
        known = self.keys.get(key)
        return known.default if known else None

    def number(self, key: str) -> float | None:
        """Return the value as a finite number, or None when it is none."""
        return as_number(self.value(key))

    def flag(self, key: str) -> bool:
        """Return whether a switch is on; text counts as the trainer's parser reads it."""
        value = self.value(key)
        return value is True or (isinstance(value, str) and value.lower() in TRUE_TEXT)

    def text(self, key: str) -> str | None:
        """Return the value when it is text."""
        value = self.value(key)
        return value if isinstance(value, str) else None

    def items(self, key: str) -> tuple[Any, ...]:
        """Return a list's items; one scalar counts as a list of one."""
        return as_items(self.value(key))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return the value when it is a mapping, else an empty one."""
        value = self.value(key)
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    @property
    def uses_lora(self) -> bool:
        """Whether an adapter is trained."""
        return self.flag("use_peft")

    @property
    def n_processes(self) -> int:
        """Processes of `accelerate launch` when the file names them, else 1."""
        n = as_number(self.values.get("num_processes"))
        return int(n) if n and n >= 1 else 1


def as_number(value: Any) -> float | None:
    """Return a finite float from a number or text that spells one, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_items(value: Any) -> tuple[Any, ...]:
    """Return a list's items as a tuple; None is empty, a scalar is one item."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(cast("list[Any]", value))
    return (value,)
