"""Which of a stage's own rows its trainer holds out to measure checkpoints on.

Rows that ask the same are kept together: an answer that was trained must not be measured. The choice
depends on the seed and on each row's prompt alone, not on the order of rows, so that a resumed attempt
and every process make the same one. Runs inside jobs: standard library only. val and test of a run are
other files; nothing here reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast


class HeldOut(NamedTuple):
    """The rows that are trained and those that are held out, both in their old order."""

    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]


def hold_out(rows: Sequence[dict[str, Any]], share: float, seed: int) -> HeldOut:
    """Return `rows` split so that about `share` of them are held out, whole prompts only.

    At least one prompt is held out and at least one is trained. Raises `ValueError` when all rows have
    the same prompt: then nothing can be held out.
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(_prompt(row), []).append(place)
    if len(groups) < 2:
        raise ValueError(f"all {len(rows)} rows have the same prompt")
    wanted = max(1, round(share * len(rows)))
    order = sorted(groups, key=lambda prompt: hashlib.sha256(f"{seed}:{prompt}".encode()).digest())
    taken: set[int] = set()
    for prompt in order:
        if len(taken) + len(groups[prompt]) <= wanted:
            taken.update(groups[prompt])
    if not taken:  # every prompt has more rows than are wanted
        taken.update(min((groups[prompt] for prompt in order), key=len))
    return HeldOut(
        [row for place, row in enumerate(rows) if place not in taken],
        [row for place, row in enumerate(rows) if place in taken],
    )


def _prompt(row: Mapping[str, Any]) -> str:
    """Return what the row asks: its prompt, the turns before the last answer, or its whole text."""
    asked = row.get("prompt")
    if asked is None:
        asked = row.get("messages")
        if isinstance(asked, list):
            turns = cast("list[Any]", asked)
            asked = turns[:-1] if len(turns) > 1 else turns
    if asked is None:
        asked = row.get("text")
    return json.dumps(asked, sort_keys=True)
