"""What may leave the machine in a text: names, numbers and words of fixed sets; never free text.

A model card is published, and much of a journal was written by an LLM, a job or a dataset. Here each
kind of value has a rule that lets through what it can name and withholds the rest; `Private` is the net
below that: it knows the run's folders, the environment's secrets and the rows of the data. It cannot
know a secret that has no usual form and stands in no variable.
"""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import BaseModel

from rdagent_ft.llm.redact import MASK, redact
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.text import one_line, without_folders
from rdagent_ft.reporting.view import RunView

WITHHELD = "not shown"
MIN_ROW_CHARS = 24
"""Shorter texts of rows, such as labels, are words that anybody may use."""
_ROW_START_CHARS = 60
_MIN_SECRET_CHARS = 8
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][\w.+@:-]{0,119}\Z", re.ASCII)
_ORG_NAME = re.compile(
    r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}(?:@[\w.-]{1,80})?(?::[\w.-]{1,80})?\Z", re.ASCII
)
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,60}\Z")
_MODULE_KEYS = frozenset({"target_modules"})
"""Free words of a recipe that name parts of the model and nothing else."""


def public_word(text: str) -> str:
    """Return a name when it is one word of letters, digits and `._+@:-`, else that it is withheld."""
    found = one_line(text, 200)
    return found if _WORD.match(found) else WITHHELD


def public_name(name: str, *, is_hub: bool) -> str:
    """Return a dataset's or model's name: `org/name` from the hub, else the last part of a path."""
    found = one_line(name, 300)
    if is_hub and _ORG_NAME.match(found):
        return found
    return public_word(PurePath(found).name)


def public_leaves(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as dotted key -> value, without what a person or a planner wrote freely.

    Numbers, switches and words of a fixed set are shown; of other texts (a data script, names of
    sources, patterns, schemas, paths) only that they are set. Absent values are left out.
    """
    return dict(_leaves(recipe, ""))


class Private(NamedTuple):
    """What must not be in a published text.

    Attributes:
        secrets: values of variables that are named like keys or tokens.
        folders: folders of this machine.
        data: the run's folder of rows; its texts are compared one by one.
    """

    secrets: tuple[str, ...]
    folders: tuple[str, ...]
    data: Path | None

    def cleaned(self, text: str) -> str:
        """Return `text` with secrets masked and folders cut to their last part."""
        for folder in self.folders:
            text = text.replace(folder, f"…/{PurePath(folder).name}")
        return redact(without_folders(text), self.secrets)

    def found_in(self, text: str) -> str | None:
        """Return what kind of private text stands in `text`, or None. The value itself is not named."""
        looks_like_key = redact(text, ()).count(MASK) > text.count(MASK)
        return "a secret" if looks_like_key else self.known_in(text)

    def known_in(self, text: str) -> str | None:
        """Return as `found_in`, but look for known values only, not for what has the form of a key."""
        if any(secret in text for secret in self.secrets):
            return "a secret"
        return "a folder of this machine" if any(folder in text for folder in self.folders) else None

    def has_row(self, text: str) -> bool:
        """Return whether a text of the run's data stands in `text`, white space and escapes apart."""
        if self.data is None:
            return False
        plain = " ".join(text.replace("\\", "").split())
        return any(start in plain for start in _row_starts(self.data))


def private_of(view: RunView, environ: Mapping[str, str] = os.environ) -> Private:
    """Return what the card and the files of a run must not hold."""
    folders = {str(view.run_dir), str(view.settings.get("file_path") or ""), str(Path.home())}
    if view.prepare is not None:
        folders |= {view.prepare.model.path, view.prepare.model.name, view.prepare.dataset.name}
        folders |= {str(PurePath(file.path).parent) for file in view.prepare.dataset.files}
    known = {folder.rstrip("/") for folder in folders if folder.startswith("/") and folder.count("/") > 1}
    secrets = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET_CHARS
    }
    longest_first = tuple(sorted(known, key=lambda folder: (-len(folder), folder)))
    return Private(secrets=tuple(sorted(secrets)), folders=longest_first, data=view.run_dir / "data")


def _leaves(model: BaseModel, prefix: str) -> Iterator[tuple[str, object]]:
    for name, field in type(model).model_fields.items():
        value: Any = getattr(model, name)
        if value is not None and name != "schema_version":
            yield from _shown(f"{prefix}{name}", name, value, field.annotation)


def _shown(key: str, name: str, value: Any, annotation: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseModel):
        yield from _leaves(value, f"{key}.")
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for place, part in enumerate(typing.cast("tuple[BaseModel, ...]", value)):
            yield from _leaves(part, f"{key}.{place}.")
    elif isinstance(value, (bool, int, float)):
        yield key, value
    elif isinstance(value, str):
        fixed = value in _words_of(annotation) or (name in _MODULE_KEYS and _MODULE.match(value))
        yield key, value if fixed else f"set, {WITHHELD}"
    elif isinstance(value, tuple):
        parts = typing.cast("tuple[Any, ...]", value)
        words = _words_of(annotation)
        named = all(
            isinstance(part, (bool, int, float))
            or part in words
            or (name in _MODULE_KEYS and isinstance(part, str) and _MODULE.match(part) is not None)
            for part in parts
        )
        if parts:
            yield key, parts if named else f"{len(parts)} set, {WITHHELD}"
    else:
        yield key, f"set, {WITHHELD}"


def _words_of(annotation: Any) -> frozenset[object]:
    """Return every value of every `Literal` in an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return frozenset(typing.get_args(annotation))
    found: frozenset[object] = frozenset()
    for part in typing.get_args(annotation):
        found |= _words_of(part)
    return found


def _row_starts(data: Path) -> Iterator[str]:
    """Yield how each text of each row begins: 60 characters, white space as one blank."""
    for path in sorted(data.glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    row: Any = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                for text in _texts(row):
                    start = " ".join(text.replace("\\", "")[: 4 * _ROW_START_CHARS].split())[
                        :_ROW_START_CHARS
                    ]
                    if len(start) >= MIN_ROW_CHARS:
                        yield start


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        parts: Any = value.values() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        for part in parts:
            yield from _texts(part)
