"""What is wrong together with the edits that would mend it, and how edits change a file's text.

Only edits that leave the task as it is travel with a finding; everything else stays advice in the
problem's `fix`. YAML keeps its comments where the file allows it; JSON is written anew.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import yaml

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.documents import Document, read_document
from rdagent_ft.values import Frozen


class Edit(Frozen):
    """One change of a top-level key.

    Attributes:
        action: `set` writes `value`, `drop` removes the key, `rename` writes `value` under `to`.
        key: the key as it stands in the file (or is to stand).
        to: the new name of a rename.
        value: the new value of `set` and `rename`.
    """

    action: Literal["set", "drop", "rename"]
    key: str
    to: str | None = None
    value: Any = None

    def describe(self) -> str:
        """Return the change as one phrase for people."""
        if self.action == "drop":
            return f"dropped `{self.key}`"
        if self.action == "rename":
            return f"renamed `{self.key}` to `{self.to}`"
        return f"set `{self.key}` to {self.value!r}"


class Finding(NamedTuple):
    """A problem and the edits, if any, that mend it without changing the task."""

    problem: Problem
    edits: tuple[Edit, ...] = ()


def finding(key: str, value: Any, rule: str, problem_class: str, fix: str, *edits: Edit) -> Finding:
    """Return a finding; short form for rules."""
    return Finding(Problem(key, value, rule, problem_class, fix), edits)


def apply_to_values(values: dict[str, Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
    """Return a copy of `values` with `edits` made in order, key order kept."""
    result = dict(values)
    for edit in edits:
        if edit.action == "set":
            result[edit.key] = edit.value
        elif edit.action == "drop":
            result.pop(edit.key, None)
        elif edit.key in result and edit.to is not None:
            result = {
                (edit.to if name == edit.key else name): (edit.value if name == edit.key else value)
                for name, value in result.items()
            }
    return result


def apply_to_text(document: Document, text: str, edits: tuple[Edit, ...]) -> str:
    """Return `text` with `edits` made. Falls back to a fresh dump when line edits would not hold."""
    wanted = apply_to_values(document.values, edits)
    if document.syntax == "json":
        return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
    if document.spans and not document.problems:
        edited = _edit_lines(document, text, edits)
        if read_document(edited, "edited.yaml").values == wanted:
            return edited
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def _edit_lines(document: Document, text: str, edits: tuple[Edit, ...]) -> str:
    pieces: list[tuple[int, int, str]] = []
    added: list[str] = []
    touched: set[str] = set()
    for edit in edits:
        span = document.spans.get(edit.key)
        if span is None or edit.key in touched:
            if edit.action == "set":
                added.append(_line(edit.key, edit.value))
            continue
        touched.add(edit.key)
        if edit.action == "drop":
            pieces.append((span.start, span.end, ""))
            continue
        name = edit.to if edit.action == "rename" and edit.to else edit.key
        comment = _end_comment(text[span.start : span.end])
        pieces.append((span.start, span.end, _line(name, edit.value, comment)))
    for start, end, new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    if added and not text.endswith("\n"):
        text += "\n"
    return text + "".join(added)


def _line(key: str, value: Any, comment: str = "") -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=100_000)
    body = f"{key}: {dumped.strip().removesuffix('...').strip()}"
    return f"{body}  {comment}\n" if comment else f"{body}\n"


def _end_comment(block: str) -> str:
    """Return the comment behind a one-line scalar, else nothing."""
    lines = block.rstrip("\n").split("\n")
    if len(lines) != 1 or " #" not in lines[0]:
        return ""
    return "#" + lines[0].split(" #", 1)[1]
