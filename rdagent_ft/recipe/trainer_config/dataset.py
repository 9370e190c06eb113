"""Rules of the data side: how `datasets` is written, and whether the columns fit the stage.

Columns are known when the config lists them (`datasets[].columns`, `dataset_text_field`) or when a
local JSON lines file can be looked into; the data need not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from rdagent_ft.recipe.catalogue import Catalogue, Method
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.recipe.trainer_config.adapters import local_model, model_family, read_json
from rdagent_ft.recipe.trainer_config.config import TrainerConfig, as_items, as_number

# What each method can be fed; one set of columns must be there as a whole.
COLUMNS: dict[Method, tuple[frozenset[str], ...]] = {
    "sft": (
        frozenset({"messages"}),
        frozenset({"prompt", "completion"}),
        frozenset({"text"}),
        frozenset({"input_ids"}),
    ),
    "dpo": (frozenset({"chosen", "rejected"}),),
    "reward": (frozenset({"chosen", "rejected"}),),
    "kto": (frozenset({"prompt", "completion", "label"}), frozenset({"chosen", "rejected"})),
    "grpo": (frozenset({"prompt"}),),
    "rloo": (frozenset({"prompt"}),),
    "distillation": (frozenset({"prompt"}), frozenset({"messages"})),
}
_EOS_OF_FAMILY: dict[str, tuple[str, ...]] = {
    "qwen2": ("<|im_end|>", "<|endoftext|>"),
    "qwen3": ("<|im_end|>", "<|endoftext|>"),
    "llama": ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>"),
    "mistral": ("</s>",),
    "gemma": ("<eos>", "<end_of_turn>"),
    "phi3": ("<|end|>", "<|endoftext|>"),
    "smollm": ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>"),
}


def check_dataset(config: TrainerConfig, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield findings of all groups."""
    entries = config.value("datasets")
    if config.given("datasets"):
        yield from _entries(config, catalogue, entries)
    if config.given("datasets") and config.given("dataset_name"):
        rule = "is ignored because `datasets` is set"
        yield finding(
            "dataset_name",
            shown(config.value("dataset_name")),
            rule,
            "config.conflict",
            "keep one of the two",
            Edit(action="drop", key="dataset_name"),
        )
    yield from _columns(config)
    yield from _template(config)
    yield from _end_token(config)


def _mappings(config: TrainerConfig) -> list[Mapping[str, Any]]:
    return [cast("dict[str, Any]", item) for item in config.items("datasets") if isinstance(item, dict)]


def _entries(config: TrainerConfig, catalogue: Catalogue, entries: Any) -> Iterator[Finding]:
    if not isinstance(entries, list) or not entries:
        yield finding(
            "datasets",
            shown(entries),
            "must be a list of mappings",
            "config.bad_value",
            "write `datasets: [{path: json, data_files: FILE, split: train}]`",
        )
        return
    for place, entry in enumerate(cast("list[Any]", entries)):
        key = f"datasets.{place}"
        if not isinstance(entry, dict):
            yield finding(
                key,
                shown(entry),
                "must be a mapping with `path`",
                "config.bad_value",
                "write `{path: json, data_files: FILE, split: train}`",
            )
            continue
        fields = cast("dict[str, Any]", entry)
        for name in fields:
            if name not in catalogue.dataset_keys:
                yield finding(
                    f"{key}.{name}",
                    shown(fields[name]),
                    "is not a key of a dataset entry",
                    "config.unknown_key",
                    f"use {', '.join(catalogue.dataset_keys)}",
                )
        if not fields.get("path"):
            yield finding(
                f"{key}.path",
                None,
                "is missing",
                "config.missing_key",
                "write `path: json` for a local file, else the Hub id",
            )
        fraction = as_number(fields.get("fraction"))
        if fields.get("fraction") is not None and (fraction is None or fraction <= 0):
            yield finding(
                f"{key}.fraction",
                shown(fields["fraction"]),
                "must be a number above 0",
                "config.bad_value",
                "write a share such as 0.5",
            )
    with_share = [entry for entry in _mappings(config) if entry.get("fraction") is not None]
    if with_share and len(with_share) != len(_mappings(config)):
        yield finding(
            "datasets",
            None,
            "sets `fraction` for some entries only",
            "config.conflict",
            "set it for all entries or none",
        )


def _columns(config: TrainerConfig) -> Iterator[Finding]:
    wanted = COLUMNS[config.method]
    text_field = config.text("dataset_text_field") if config.method == "sft" else None
    if text_field and config.given("dataset_text_field"):
        wanted = (*wanted, frozenset({text_field}))
    for place, entry in enumerate(_mappings(config)):
        listed = [str(item) for item in as_items(entry.get("columns"))]
        columns = listed or list(first_row(config, entry))
        where = f"datasets.{place}.columns" if listed else f"datasets.{place}.data_files"
        if not columns:
            continue
        if not any(need <= set(columns) for need in wanted):
            options = " or ".join(
                "+".join(sorted(need)) for need in wanted if need != frozenset({"input_ids"})
            )
            yield finding(
                where,
                shown(columns),
                f"do not fit {config.method}, which needs {options}",
                "data.columns",
                _column_fix(config, columns),
            )
        elif config.method == "sft":
            yield from _mask_fits(config, set(columns))
    if (
        config.method == "sft"
        and text_field
        and config.given("dataset_text_field")
        and config.flag("completion_only_loss")
    ):
        yield finding(
            "completion_only_loss",
            True,
            "needs prompt and completion columns, and `dataset_text_field` names running text",
            "data.columns",
            "drop one of the two",
        )


def _column_fix(config: TrainerConfig, columns: list[str]) -> str:
    if {"instruction", "output"} <= set(columns):
        return "alpaca columns must be turned into prompt and completion first"
    if "conversations" in columns:
        return "ShareGPT turns must be turned into messages with role and content first"
    if {"chosen", "rejected"} <= set(columns):
        return "these are preference pairs: train with dpo, or keep prompt and chosen as completion"
    return f"map the columns, or choose the stage that fits; {config.method} was judged"


def _mask_fits(config: TrainerConfig, columns: set[str]) -> Iterator[Finding]:
    if config.flag("assistant_only_loss") and "messages" not in columns:
        yield finding(
            "assistant_only_loss",
            True,
            "needs a `messages` column",
            "data.columns",
            "drop it; prompt/completion data trains the completion alone",
        )
    if config.flag("completion_only_loss") and not {"prompt", "completion"} <= columns:
        yield finding(
            "completion_only_loss",
            True,
            "needs prompt and completion columns",
            "data.columns",
            "drop it, or write the data as prompt/completion",
        )


def first_row(config: TrainerConfig, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first record of a local JSON file that an entry names, else an empty mapping."""
    names = [item for item in as_items(entry.get("data_files")) if isinstance(item, str)]
    for name in names:
        for root in (config.folder or Path(), Path()):
            path = root / name
            if path.suffix in (".jsonl", ".json") and path.is_file():
                return _first_record(path)
    return {}


def _first_record(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            head = stream.read(1 << 20).lstrip("\ufeff \n\r\t")
    except OSError:
        return {}
    decoder = json.JSONDecoder()
    try:
        value, _ = decoder.raw_decode(head.lstrip("[ \n\r\t") if head.startswith("[") else head)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _template(config: TrainerConfig) -> Iterator[Finding]:
    path = config.text("chat_template_path")
    if path and path.endswith((".jinja", ".j2")):
        roots = (config.folder or Path(), Path())
        if not any((root / path).is_file() for root in roots):
            yield finding(
                "chat_template_path",
                path,
                "names a template file that does not exist",
                "data.template",
                "correct the path, or drop it to use the tokenizer's own template",
            )
        return
    folder = local_model(config)
    if folder is None or path or has_chat_template(folder):
        return
    for entry in _mappings(config):
        row = first_row(config, entry)
        columns = [str(item) for item in as_items(entry.get("columns"))]
        chat = (
            any(isinstance(row.get(name), list) for name in ("messages", "prompt", "chosen"))
            or "messages" in columns
        )
        if chat:
            yield finding(
                "model_name_or_path",
                shown(config.value("model_name_or_path")),
                "has no chat template, and the data are conversations",
                "data.template",
                "set `chat_template_path`, or write the data as plain prompt/completion text",
            )
            return


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder carries a chat template in any of its three forms."""
    files = ("chat_template.jinja", "chat_template.json")
    return any((folder / name).is_file() for name in files) or bool(
        read_json(folder / "tokenizer_config.json").get("chat_template")
    )


def _end_token(config: TrainerConfig) -> Iterator[Finding]:
    token = config.text("eos_token")
    if not token or "eos_token" not in config.keys:
        return
    folder = local_model(config)
    if folder is not None and (folder / "tokenizer.json").is_file():
        text = (folder / "tokenizer.json").read_text(encoding="utf-8", errors="replace")
        known = json.dumps(token, ensure_ascii=False) in text or json.dumps(token) in text
        expected = "the tokenizer's vocabulary"
    else:
        family = model_family(config)
        usual = _EOS_OF_FAMILY.get(family or "")
        known = usual is None or token in usual
        expected = f"the vocabulary of {family} models" + (f" ({', '.join(usual)})" if usual else "")
    if not known:
        yield finding(
            "eos_token",
            token,
            f"is not in {expected}",
            "data.eos",
            "drop it: the tokenizer's own end token is used",
        )
