"""Read a taxonomy that a person wrote: a list of tags, or names with lists of tags.

A tag is the text as it is written: `yes`, `1` and `null` stay these words, of which a YAML reader would make
other values. A name that stands twice is refused, because the last one would win silently.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import yaml

from rdagent_ft.data.tags import MAX_NAMES, Taxonomy, parse_taxonomy
from rdagent_ft.errors import UserError

MAX_BYTES = 1 << 16
DEFAULT_COLUMN = "tag"
_FORMS = "write a list of tags, or {grade: [easy, hard], topic: [algebra, other]}"


def read_taxonomy(path: Path, column: str | None = None) -> Taxonomy:
    """Return the taxonomy of a .yaml, .yml, .json or .txt file (.txt: one tag a line).

    `column` names the column of a plain list, by default `tag`. Raises `UserError` for a file that cannot be
    read, holds anything else, or has names of its own where `column` is given.
    """
    text = _text_of(path)
    suffix = path.suffix.lower()
    if suffix == ".txt":
        found: Any = [line.strip() for line in text.splitlines() if line.strip()]
    elif suffix == ".json":
        found = _of_json(path, text)
    elif suffix in {".yaml", ".yml"}:
        found = _of_yaml(path, text)
    else:
        raise UserError(f"--taxonomy {str(path)!r} has no known ending", hint="use .yaml, .json or .txt")
    if isinstance(found, list):
        return parse_taxonomy({column or DEFAULT_COLUMN: found})
    if column is not None and isinstance(found, dict):
        names = ", ".join(cast("dict[str, Any]", found))
        raise UserError(
            f"--column {column!r} is for a plain list of tags, and {path.name} names its columns: {names}",
            hint="leave --column away, or rename it in the file",
        )
    return parse_taxonomy(found)


def _text_of(path: Path) -> str:
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"--taxonomy {str(path)!r} cannot be read: {reason}", hint=_FORMS) from None
    if raw is None:
        raise UserError(f"--taxonomy {str(path)!r} is larger than {MAX_BYTES:,} bytes", hint=_FORMS)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"--taxonomy {str(path)!r} is not UTF-8 text", hint="save it as UTF-8") from None


def _of_json(path: Path, text: str) -> Any:
    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_names(path, [name for name, _ in pairs])
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=collect)
    except json.JSONDecodeError as error:
        raise UserError(f"{path.name}, line {error.lineno}: malformed JSON: {error.msg}") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise _no_taxonomy(path) from None
    if isinstance(found, dict):
        named = cast("dict[str, Any]", found)
        return {name: _words(path, listed) for name, listed in named.items()}
    return _words(path, found)


def _words(path: Path, listed: Any) -> list[str]:
    """Return the entries of a list as text. Raises `UserError` for no list and for nested values."""
    if not isinstance(listed, list):
        raise _no_taxonomy(path)
    words = [
        each if isinstance(each, str) else json.dumps(each)
        for each in cast("list[Any]", listed)
        if isinstance(each, (str, bool, int, float))
    ]
    if len(words) != len(cast("list[Any]", listed)) or not all(map(_is_unicode, words)):
        raise _no_taxonomy(path)
    return words


def _of_yaml(path: Path, text: str) -> Any:
    """Return list or mapping from the nodes themselves, so that scalars stay as they are spelled."""
    try:
        root = cast("yaml.Node | None", yaml.compose(text, yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}{place}: malformed YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError):
        raise _no_taxonomy(path) from None
    if isinstance(root, yaml.MappingNode):
        # One too many is refused later; all of them could be aliases of one long list.
        pairs = cast("list[tuple[yaml.Node, yaml.Node]]", root.value)[: MAX_NAMES + 1]
        names = [_scalar(path, key) for key, _ in pairs]
        _check_names(path, names)
        return {name: _scalars(path, value) for name, (_, value) in zip(names, pairs, strict=True)}
    return _scalars(path, root)


def _scalars(path: Path, node: yaml.Node | None) -> list[str]:
    if not isinstance(node, yaml.SequenceNode):
        raise _no_taxonomy(path)
    return [_scalar(path, item) for item in cast("list[yaml.Node]", node.value)]


def _scalar(path: Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not _is_unicode(node.value):
        raise _no_taxonomy(path)
    return node.value


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path.name} has the name {twice!r} twice", hint="keep one of the two")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _no_taxonomy(path: Path) -> UserError:
    return UserError(f"--taxonomy {str(path)!r} is no taxonomy", hint=_FORMS)
