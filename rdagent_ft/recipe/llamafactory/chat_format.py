"""Which of LLaMA-Factory's prompt templates a model is trained with.

The trainer renders prompts by templates of its own, chosen by name, while the model is served with
its own chat template. The choice here goes by family and by marks in the model's template; the job
compares both on real rows before it trains, and refuses when they differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from rdagent_ft.errors import PreflightError

PLAIN_TEMPLATE = "empty"
"""Prompt and answer as they stand; it adds no end token, so the data file carries it."""


class _Choice(NamedTuple):
    families: tuple[str, ...]
    marks: tuple[str, ...]
    template: str


# The first row whose family (`model_type`) and marks all fit is taken. Marks stand in the chat template.
_CHOICES = (
    _Choice(("llama",), ("<|start_header_id|>",), "llama3"),
    _Choice(("llama",), ("<|im_start|>", "SmolLM, trained by"), "smollm2"),
    _Choice(("llama",), ("<|im_start|>",), "smollm"),
    _Choice(("qwen2",), ("<|im_start|>", "You are Qwen"), "qwen"),
    _Choice(("qwen2", "qwen3"), ("<|im_start|>",), "qwen3_nothink"),
    _Choice(("mistral",), ("[INST]",), "mistral"),
    _Choice(("gemma",), ("<start_of_turn>",), "gemma"),
    _Choice(("gemma2",), ("<start_of_turn>",), "gemma2"),
    _Choice(("gemma3", "gemma3_text"), ("<start_of_turn>",), "gemma3"),
    _Choice(("phi3",), ("<|im_sep|>",), "phi4"),
    _Choice(("phi3",), ("<|user|>", "\\n"), "phi"),
    _Choice(("phi3",), ("<|user|>",), "phi4_mini"),
)


def choose_template(model: Path, prompt_format: Literal["plain", "chat"]) -> str:
    """Return the name of the template for a model folder.

    Raises `PreflightError` for `chat` when the family or its template is not one of the table's.
    """
    if prompt_format == "plain":
        return PLAIN_TEMPLATE
    family = str(_read(model / "config.json").get("model_type", "unknown"))
    own = _own_template(model)
    for choice in _CHOICES:
        if family in choice.families and all(mark in own for mark in choice.marks):
            return choice.template
    known = ", ".join(sorted({name for choice in _CHOICES for name in choice.families}))
    raise PreflightError(
        f"LLaMA-Factory has no template known to fit the chat template of {str(model)!r} (family {family})",
        hint=f"train with `trl`, which uses the model's own template; families known here: {known}",
    )


def _own_template(model: Path) -> str:
    path = model / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = _read(model / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PreflightError(f"{str(path)!r} cannot be read: {error}") from None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
