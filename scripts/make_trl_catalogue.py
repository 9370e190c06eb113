# pyright: basic
"""Introspect the installed TRL and write the key catalogue that the validator reads.

Run it in the training environment after moving the pin of TRL or transformers:

    python scripts/make_trl_catalogue.py            # writes the package's catalogue file
    python scripts/make_trl_catalogue.py --check    # exit 1 when the committed file differs

It needs no model, no data and no network. Keys that all methods share in every detail are stored
once under `common`.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import importlib
import json
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "rdagent_ft" / "recipe" / "catalogues"
METHODS = ("sft", "dpo", "kto", "reward", "grpo", "rloo", "distillation")
SCALARS = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list"}


def type_names(annotation: Any) -> tuple[list[str], bool, list[str] | None]:
    """Return the JSON type names of an annotation, whether null is allowed, and enum choices."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        names, nullable, choices = [], False, None
        for part in typing.get_args(annotation):
            more, null, some = type_names(part)
            names += [name for name in more if name not in names]
            nullable, choices = nullable or null, some or choices
        return names, nullable, choices
    if annotation is type(None):
        return [], True, None
    if origin is typing.Literal:
        values = typing.get_args(annotation)
        return sorted({SCALARS[type(value)] for value in values}), False, None
    if origin is list:
        (element,) = typing.get_args(annotation)
        inner = SCALARS.get(element)
        return [f"list[{inner}]" if inner else "list"], False, None
    if origin is dict or annotation is dict:
        return ["dict"], False, None
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ["str"], False, [str(member.value) for member in annotation]
    return [SCALARS.get(annotation, "dict")], False, None


def json_default(field: dataclasses.Field[Any]) -> Any:
    """Return the field's default as JSON."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, enum.Enum):
        return value.value
    return value if isinstance(value, (str, int, float, bool, list, dict)) else None


def method_keys(method: str) -> dict[str, dict[str, Any]]:
    """Return every key of one method: what its parser accepts, with type, default and choices."""
    parser = importlib.import_module(f"trl.scripts.{method}").make_parser()
    keys: dict[str, dict[str, Any]] = {}
    for dataclass_type in parser.dataclass_types:
        hints = typing.get_type_hints(dataclass_type)
        for field in dataclasses.fields(dataclass_type):
            if not field.init:
                continue
            names, nullable, choices = type_names(hints[field.name])
            listed = field.metadata.get("choices")
            entry: dict[str, Any] = {"types": names, "default": json_default(field)}
            if nullable:
                entry["nullable"] = True
            if choices or listed:
                entry["choices"] = choices or [str(choice) for choice in listed]
            keys[field.name] = entry
    return dict(sorted(keys.items()))


def launch_keys() -> list[str]:
    """Return what `trl … --config` hands on to `accelerate launch`."""
    from accelerate.commands.launch import launch_command_parser

    options = (name for action in launch_command_parser()._actions for name in action.option_strings)
    names = {name[2:] for name in options if name.startswith("--") and "-" not in name[2:]}
    return sorted((names | {"accelerate_config"}) - {"help", "env", "cpu"})


def build() -> tuple[str, str]:
    """Return the catalogue's file name and its text."""
    import transformers
    import trl
    from trl.scripts.utils import DatasetConfig

    methods = {method: method_keys(method) for method in METHODS}
    first = methods[METHODS[0]]
    common = {
        name: entry
        for name, entry in first.items()
        if all(keys.get(name) == entry for keys in methods.values())
    }
    document = {
        "trainer": "trl",
        "version": trl.__version__,
        "transformers": transformers.__version__,
        "dataset_keys": [field.name for field in dataclasses.fields(DatasetConfig)],
        "launch_keys": launch_keys(),
        "common": common,
        "methods": {
            method: {name: entry for name, entry in keys.items() if name not in common}
            for method, keys in methods.items()
        },
    }
    return f"trl-{trl.__version__}.json", as_lines(document)


def as_lines(document: dict[str, Any]) -> str:
    """Return JSON with one key of the trainer per line, so that a version bump reads as a diff."""
    lines = ["{"]
    for name in ("trainer", "version", "transformers", "dataset_keys", "launch_keys"):
        lines.append(f"  {json.dumps(name)}: {json.dumps(document[name])},")
    lines.append('  "common": {')
    lines += _entries(document["common"], "    ")
    lines.append('  },\n  "methods": {')
    methods = list(document["methods"].items())
    for place, (method, keys) in enumerate(methods):
        lines.append(f"    {json.dumps(method)}: {{")
        lines += _entries(keys, "      ")
        lines.append("    }" + ("," if place + 1 < len(methods) else ""))
    return "\n".join([*lines, "  }", "}"]) + "\n"


def _entries(keys: dict[str, Any], indent: str) -> list[str]:
    last = len(keys) - 1
    return [
        f"{indent}{json.dumps(name)}: {json.dumps(entry)}{',' if place < last else ''}"
        for place, (name, entry) in enumerate(keys.items())
    ]


def main() -> int:
    """Write or check the catalogue."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    arguments = options.parse_args()
    name, text = build()
    path = FOLDER / name
    if arguments.check:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{name}: {'as installed' if same else 'differs from the installed trainer'}\n")
        return 0 if same else 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
