# pyright: basic
"""Introspect the installed LLaMA-Factory and write the key catalogue that its validator reads.

Run it with the Python of its own environment after moving its pin:

    .venv-llamafactory/bin/python scripts/make_llamafactory_catalogue.py            # writes the file
    .venv-llamafactory/bin/python scripts/make_llamafactory_catalogue.py --check    # exit 1 when it differs

All training stages know the same keys, so there are two sets: `train`, and the smaller `export`.
It needs no model, no data and no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import typing
from importlib import metadata
from typing import Any

from make_trl_catalogue import FOLDER, json_default, type_names


def build() -> tuple[str, str]:
    """Return the catalogue's file name and its text."""
    import llamafactory.hparams as hparams
    from llamafactory.data.template import TEMPLATES

    shared = (hparams.ModelArguments, hparams.DataArguments)
    methods = (hparams.FinetuningArguments, hparams.GeneratingArguments)
    train = keys_of(*shared, hparams.TrainingArguments, *methods)
    export = keys_of(*shared, *methods)
    version = metadata.version("llamafactory")
    document = {
        "trainer": "llamafactory",
        "version": version,
        "transformers": metadata.version("transformers"),
        "templates": sorted(TEMPLATES),
        "export_keys": sorted(export),
    }
    lines = ["{"]
    lines += [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in document.items()]
    entries = [f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(train.items())]
    text = "\n".join([*lines, '  "keys": {', ",\n".join(entries), "  }", "}"]) + "\n"
    return f"llamafactory-{version}.json", text


def keys_of(*dataclass_types: Any) -> dict[str, dict[str, Any]]:
    """Return every key that a parser of these dataclasses takes, with type, default and choices."""
    keys: dict[str, dict[str, Any]] = {}
    for dataclass_type in dataclass_types:
        hints = typing.get_type_hints(dataclass_type)
        for field in dataclasses.fields(dataclass_type):
            if not field.init:
                continue
            names, nullable, choices = type_names(hints[field.name])
            words = choices or literal_words(hints[field.name]) or field.metadata.get("choices")
            entry: dict[str, Any] = {"types": names, "default": json_default(field)}
            if nullable or entry["default"] is None:
                entry["nullable"] = True
            if words:
                entry["choices"] = [str(word) for word in words]
            keys[field.name] = entry
    return keys


def literal_words(annotation: Any) -> list[str] | None:
    """Return the words of a `Literal`, also inside an optional."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(word) for word in typing.get_args(annotation)]
    for part in typing.get_args(annotation):
        words = literal_words(part)
        if words:
            return words
    return None


def main() -> int:
    """Write or check the catalogue."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    arguments = options.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    name, text = build()
    path = FOLDER / name
    if arguments.check:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{name}: {'as installed' if same else 'differs from the installed trainer'}\n")
        return 0 if same else 1
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
