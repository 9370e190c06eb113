"""Read a recipe or trainer config from JSON or YAML text, with places, and write edits back.

Why not `yaml.safe_load` alone: a key that stands twice is silently the last one there, and a
problem without a line is hard to find. Text is never evaluated; size, nesting and aliases are
capped. Reads one mapping at the top; anything else is a problem.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, cast

import yaml
from pydantic import Field

from rdagent_ft.errors import Problem
from rdagent_ft.values import Frozen

MAX_BYTES = 1 << 18
MAX_KEYS = 2000
MAX_ALIASES = 20
MAX_DEPTH = 30
Syntax = Literal["json", "yaml"]
_FLOAT_TEXT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Span(Frozen):
    """Where a top-level key stands in YAML text: offsets in characters, line from 1."""

    start: int
    end: int
    line: int


class Document(Frozen):
    """A parsed file.

    Attributes:
        syntax: how it was read.
        values: the top-level mapping (plain JSON-like values; YAML dates stay dates).
        spans: places of the top-level keys (YAML in block style only).
        problems: syntax errors and keys that stand twice.
    """

    syntax: Syntax
    values: dict[str, Any] = Field(default_factory=dict)
    spans: dict[str, Span] = Field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_document(text: str, name: str) -> Document:
    """Return the parsed text. JSON when `name` ends in .json or the text is a JSON object.

    Never raises on content: what is wrong is in `problems` (class `config.syntax` or
    `config.duplicate_key`) and `values` is then what could be read, maybe empty.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES or text.count("\n") > 10 * MAX_KEYS:
        return _broken("yaml", "file", f"is larger than {MAX_BYTES} bytes", "pass a config, not data")
    document = _read(text.removeprefix("\ufeff"), name)
    if len(document.values) > MAX_KEYS:
        return _broken(document.syntax, "file", f"has {len(document.values)} keys", "pass a config, not data")
    return document


def _read(text: str, name: str) -> Document:
    if name.lower().endswith(".json"):
        return _read_json(text)
    if text.lstrip().startswith("{"):
        as_json = _read_json(text)
        if as_json.values or not as_json.problems:
            return as_json
    return _read_yaml(text)


def number_from_text(value: Any) -> Any:
    """Return `value` as a float when it is text that spells one, else unchanged.

    YAML 1.1 reads `1e-4` (no dot, no sign) as text; people and LLMs mean the number.
    """
    if isinstance(value, str) and _FLOAT_TEXT.fullmatch(value.strip()):
        return float(value)
    return value


def shown(value: Any) -> Any:
    """Return `value` fit for a report: JSON-ready, finite, short."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:197] + "..."
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", list(value))  # pyright: ignore[reportUnknownArgumentType]
        return [shown(item) for item in items] if len(items) <= 20 else f"a list of {len(items)}"
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        if len(entries) > 20:
            return f"a mapping of {len(entries)} keys"
        return {str(key): shown(item) for key, item in entries.items()}
    return str(value)[:200]


def _broken(syntax: Syntax, key: str, rule: str, fix: str, value: Any = None) -> Document:
    return Document(syntax=syntax, problems=(Problem(key, value, rule, "config.syntax", fix),))


def _duplicate(key: str, line: int | None) -> Problem:
    place = f" (again on line {line})" if line else ""
    return Problem(
        key, None, f"stands more than once{place}", "config.duplicate_key", "keep one of the two lines"
    )


def _read_json(text: str) -> Document:
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key, value in pairs:
            if key in merged:
                twice.append(key)
            merged[key] = value
        return merged

    try:
        values = json.loads(text, object_pairs_hook=collect)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        return _broken("json", place, f"is not valid JSON: {error.msg}", "correct the syntax there")
    except RecursionError:
        return _broken("json", "file", "is nested too deeply", "use a flat config")
    if not isinstance(values, dict):
        return _broken("json", "file", "must be a JSON object", "write key/value pairs")
    problems = tuple(_duplicate(key, None) for key in dict.fromkeys(twice))
    return Document(syntax="json", values=cast("dict[str, Any]", values), problems=problems)


def _read_yaml(text: str) -> Document:
    try:
        too_much = _too_much(text)
        if too_much:
            return _broken("yaml", "file", too_much, "use a flat config with the values written out")
        node = cast("yaml.Node | None", yaml.compose(text, yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        return _broken(
            "yaml", place, f"is not valid YAML: {error.problem or error.context}", "correct the syntax there"
        )
    except yaml.YAMLError as error:
        return _broken("yaml", "file", f"is not valid YAML: {error}"[:300], "save it as UTF-8 text")
    except (ValueError, TypeError) as error:  # impossible dates, unhashable keys
        return _broken("yaml", "file", f"holds a value that YAML cannot build: {error}"[:300], "quote it")
    except RecursionError:
        return _broken("yaml", "file", "is nested too deeply", "use a flat config")
    if _holds_itself(values, ()):
        return _broken("yaml", "file", "has an alias inside its own anchor", "write the values out")
    if node is None or not isinstance(values, dict):
        return _broken("yaml", "file", "must be a mapping of keys to values", "write `key: value` lines")
    spans, problems = _places(cast("yaml.MappingNode", node), text)
    named = {str(key): value for key, value in cast("dict[Any, Any]", values).items()}
    return Document(syntax="yaml", values=named, spans=spans, problems=tuple(problems))


def _too_much(text: str) -> str | None:
    """Return why the structure is refused before it is built: nesting or aliases that multiply."""
    depth = n_aliases = 0
    for event in cast("Iterator[object]", yaml.parse(text, yaml.SafeLoader)):  # pyright: ignore[reportUnknownMemberType]
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        n_aliases += isinstance(event, yaml.AliasEvent)
        if depth > MAX_DEPTH:
            return "is nested too deeply"
        if n_aliases > MAX_ALIASES:
            return f"uses more than {MAX_ALIASES} YAML aliases"
    return None


def _holds_itself(value: Any, above: tuple[int, ...]) -> bool:
    """Return whether a list or mapping is a part of itself, which only an alias can make."""
    if id(value) in above:
        return True
    if isinstance(value, dict):
        parts = list(cast("dict[Any, Any]", value).values())
    elif isinstance(value, list):
        parts = cast("list[Any]", value)
    else:
        return False
    return any(_holds_itself(part, (*above, id(cast("object", value)))) for part in parts)


def _places(node: yaml.MappingNode, text: str) -> tuple[dict[str, Span], list[Problem]]:
    """Return the top-level spans and every key that stands twice in one mapping, at any depth."""
    problems: list[Problem] = []
    spans: dict[str, Span] = {}
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
    for key, value in pairs:
        name = str(cast("Any", key).value)
        end = text.find("\n", _last_offset(value))
        spans[name] = Span(
            start=key.start_mark.index,
            end=len(text) if end < 0 else end + 1,
            line=key.start_mark.line + 1,
        )
    waiting: list[tuple[str, yaml.Node]] = [("", node)]
    seen: set[int] = set()
    while waiting:
        prefix, here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, yaml.SequenceNode):
            items = cast("list[yaml.Node]", here.value)
            waiting += [(f"{prefix}{place}.", item) for place, item in enumerate(items)]
        elif isinstance(here, yaml.MappingNode):
            names: set[str] = set()
            for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", here.value):
                name = str(cast("Any", key).value)
                if name in names and name != "<<":
                    problems.append(_duplicate(f"{prefix}{name}", key.start_mark.line + 1))
                names.add(name)
                waiting.append((f"{prefix}{name}.", value))
    return ({} if node.flow_style else spans), problems


def _last_offset(node: yaml.Node) -> int:
    """Return the offset of a value's last character; a block's own end mark lies after blank lines."""
    here: Any = node
    while isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) and not here.flow_style and here.value:
        last: Any = here.value[-1]
        here = node = cast("yaml.Node", last[1] if isinstance(last, tuple) else last)
    return max(int(here.start_mark.index), int(here.end_mark.index) - 1)
