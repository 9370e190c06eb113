"""What a reader should know about who judges whom: judges favour their own family's texts.

From names only: a renamed model is not recognised, and then nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rdagent_ft.llm.endpoint import is_loopback
from rdagent_ft.values import Frozen

_FAMILIES: dict[str, tuple[str, ...]] = {
    "qwen": ("qwen", "qwq"),
    "llama": ("llama", "codellama", "vicuna", "alpaca"),
    "gpt": ("gpt", "chatgpt", "o1", "o3", "o4", "davinci"),
    "claude": ("claude",),
    "gemini": ("gemini", "gemma", "palm"),
    "mistral": ("mistral", "mixtral", "ministral", "codestral", "magistral"),
    "deepseek": ("deepseek",),
    "phi": ("phi",),
    "smollm": ("smollm",),
    "yi": ("yi",),
    "glm": ("glm", "chatglm"),
    "kimi": ("kimi",),
    "olmo": ("olmo",),
    "falcon": ("falcon",),
    "granite": ("granite",),
    "internlm": ("internlm",),
    "grok": ("grok",),
    "command": ("command",),
}
_DATED = re.compile(r"(?<!\d)(20\d\d-?[01]\d-?[0-3]\d|[0-3]\d[0-3]\d)(?!\d)")


class Caution(Frozen):
    """One thing to keep in mind when reading a judge's numbers."""

    code: Literal["same_family", "same_as_planner", "same_as_teacher", "undated_model"]
    message: str


def model_families(name: str) -> frozenset[str]:
    """Return the families that a model's name mentions (a distilled model may have two)."""
    words = re.findall(r"o[134](?![a-z0-9])|[a-z]+", name.rsplit("/", 1)[-1].lower())
    return frozenset(
        family for family, starts in _FAMILIES.items() if any(_is_of(word, starts) for word in words)
    )


def judge_cautions(
    judge_model: str,
    *,
    tuned_names: Sequence[str] = (),
    planner_model: str | None = None,
    teacher_models: Sequence[str] = (),
    base_url: str | None = None,
) -> tuple[Caution, ...]:
    """Return what speaks for care with this judge.

    `tuned_names`: the tuned model's id and its config's model type; `teacher_models`: who wrote training
    data; `base_url`: the judge's endpoint.
    """
    found: list[Caution] = []
    shared = model_families(judge_model) & frozenset().union(*map(model_families, tuned_names))
    if shared:
        text = f"the judge {judge_model} is of the tuned model's family ({', '.join(sorted(shared))})"
        found.append(Caution(code="same_family", message=f"{text}: it may prefer its own style"))
    if planner_model and _plain(planner_model) == _plain(judge_model):
        text = f"the judge {judge_model} is the planner too: it judges what it designed"
        found.append(Caution(code="same_as_planner", message=text))
    if any(_plain(teacher) == _plain(judge_model) for teacher in teacher_models):
        text = f"the judge {judge_model} wrote training data: it may recognise its own answers"
        found.append(Caution(code="same_as_teacher", message=text))
    if not is_loopback(base_url) and not _DATED.search(judge_model):
        text = f"{judge_model} names no dated version: the provider may change it, and verdicts with it"
        found.append(Caution(code="undated_model", message=text))
    return tuple(found)


def _is_of(word: str, starts: Sequence[str]) -> bool:
    """Short family names must be the whole word (`yi`, `phi`), longer ones may go on (`smollmx`)."""
    return any(word == start or (len(start) > 3 and word.startswith(start)) for start in starts)


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].strip().lower()
