"""Tables of docs/recipes.md that are read from classes: fields, priors, order of stages, repairs, health.

Types, ranges and defaults come from the pydantic classes, meanings from the `Attributes:` part of their
docstrings. A field without a meaning is an error, so that a new field cannot be forgotten.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from rdagent_ft.knowledge.store import Prior, load_priors
from rdagent_ft.recipe.fields import allowed_words, models
from rdagent_ft.recipe.stage_order import check_stage_order
from rdagent_ft.recipe.stages import STAGE_CLASSES

KINDS = tuple(STAGE_CLASSES)
_KIND_WORDS = re.compile(rf"\b({'|'.join(KINDS)})\b")
_MEANINGS: dict[str, dict[str, str]] = {
    "LoraAdapter": {
        "r": "rank of the two small matrices",
        "alpha": "the update is scaled by alpha / r",
        "dropout": "share of the adapter's input that is dropped in training",
        "target_modules": "which linear layers are adapted: all, or names of the model's own; never the head",
        "use_rslora": "scale by alpha / sqrt(r), so that high ranks keep their strength",
        "use_dora": "split magnitude from direction; merged before it is served",
        "quantization": "`nf4` holds the frozen base in 4 bits (QLoRA); needs a GPU with bitsandbytes",
    },
    "_Reward": {"weight": "factor of the score in the sum; below 0 it punishes"},
    "NumericReward": {"tolerance": "relative to the gold number"},
    "RegexReward": {
        "pattern": "a regular expression of Python",
        "whole": "whether it must match all of the completion",
    },
    "JsonSchemaReward": {"json_schema": "the schema as JSON text; a mapping in YAML is taken as that"},
    "JsonFieldReward": {"path": "names and places between dots, as `plan.0.agent`"},
    "CodeReward": {"timeout_s": "seconds for each test"},
    "PythonReward": {"function": "package, module and name between dots"},
    "SourceWeight": {
        "source": "the value of a row's `source`",
        "weight": "2 is every row twice, 0.5 half of them",
    },
    "SourceCap": {"source": "the value of a row's `source`", "max_items": "rows kept, repeats counted"},
}
"""Meanings of fields whose class explains them in its text only."""


def cell(text: str) -> str:
    """Return a text on one line, as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def code_cell(value: Any) -> str:
    """Return a value as code; a dash for a field that must be given."""
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"`kind: {kind}`" if kind else "all defaults"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    words = (
        {None: "null", True: "true", False: "false"}.get(value)
        if isinstance(value, (bool, type(None)))
        else None
    )
    return f"`{words or (f'{value:g}' if isinstance(value, float) else value)}`"  # fmt: skip


def field_table(
    model: type[BaseModel], path: tuple[str | int, ...], values: Any, *, base: Any = None
) -> list[str]:
    """Return the table of a class's fields: those that `base` has not, or has with another default.

    Args:
        model: the class.
        path, values: a recipe and the place in it where such an object stands.
        base: the class whose table is shown elsewhere.

    Raises `LookupError` for a field without a meaning.
    """  # fmt: skip
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        inherited = base.model_fields.get(name) if base else None
        if name == "kind" or (inherited and inherited.default == field.default):
            continue
        meaning = re.sub(r"\bNone\b", "`null`", meaning_of(model, name)).rstrip(".")
        allowed = _words(model, name, (*path, name), values)
        default = code_cell(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | {cell(allowed)} | {default} | {cell(meaning)} |")
    return lines if len(lines) > 2 else ["None."]


def meaning_of(model: type[BaseModel], field: str) -> str:
    """Return what a field means, from the class that explains it first. Raises `LookupError`."""
    for owner in model.__mro__:
        listed = _MEANINGS.get(owner.__name__, {}) | _attributes(owner.__doc__ or "")
        if field in listed:
            return listed[field]
    raise LookupError(f"{model.__name__}.{field} has no meaning: name it under Attributes")


def prior_table(priors: list[Prior]) -> list[str]:
    """Return priors with what they say, where they hold, and their source."""
    lines = ["| id | what is known | value | holds for | source |", "|---|---|---|---|---|"]
    for prior in priors:
        scope = prior.applies_to
        if prior.range is not None:
            shown = f"{prior.range[0]:g} to {prior.range[1]:g}"
        elif prior.value is not None:
            shown = _plain(prior.value)
        else:
            shown = ", ".join(_plain(item) for item in prior.grid or ())
        held = [*(scope.adapter or ()), *(scope.family or ())]
        held += [f"{scope.size_b[0]:g} to {scope.size_b[1]:g} B weights"] if scope.size_b else []
        held += [f"{scope.n_rows[0]:,} to {scope.n_rows[1]:,} rows"] if scope.n_rows else []
        lines.append(
            f"| `{prior.id}` | {cell(prior.claim)} | {cell(shown)} | {', '.join(held) or 'all'} | "
            f"{cell(prior.source)} ({prior.confidence}) |"
        )
    return lines


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value).split("\n")[0]


def priors_of(kind: str | None) -> list[Prior]:
    """Return the priors that name this kind of stage; those that name no kind for None."""
    if kind is None:
        return [prior for prior in load_priors() if not prior.applies_to.method]
    return [prior for prior in load_priors() if kind in (prior.applies_to.method or ())]


def order_lines() -> list[str]:
    """Return which stage may follow which, with the reasons, asked of `check_stage_order`."""
    lines: list[str] = []
    reasons: dict[str, tuple[list[str], str]] = {}
    for adapter, words in (("lora", "trains LoRA"), ("full", "trains all weights")):
        lines += [f"Where the first one {words}:", ""]
        lines += ["| first \\ then | " + " | ".join(f"`{kind}`" for kind in KINDS) + " |"]
        lines += ["|---" * (len(KINDS) + 1) + "|"]
        for first in KINDS:
            answers = [pair_answer(first, then, adapter) for then in KINDS]
            lines.append(f"| `{first}` | " + " | ".join(answer for answer, _ in answers) + " |")
            for then, (answer, reason) in zip(KINDS, answers, strict=True):
                if answer != "yes":
                    pairs, _ = reasons.setdefault(_KIND_WORDS.sub("…", reason), ([], reason))
                    pairs += [f"`{first}`, `{then}`"] if f"`{first}`, `{then}`" not in pairs else []
        lines.append("")
    lines += ["Why not, as the validator says it (for the first pair named):", ""]
    return [*lines, *(f"- {'; '.join(pairs)}: {reason}." for pairs, reason in reasons.values())]


def pair_answer(first: str, then: str, adapter: str) -> tuple[str, str]:
    """Return `yes`, `merge between` or `no` for one stage right after another, and why not."""
    before = (
        [_stage("sft", "lora"), _stage("merge", adapter)] if first == "merge" else [_stage(first, adapter)]
    )
    last = _stage(then, adapter, asks=first == "reward")
    direct = _order_problem([*before, last])
    if direct is None:
        return "yes", ""
    if then != "merge" and _order_problem([*before, _stage("merge", adapter), last]) is None:
        return "merge between", direct
    return "no", direct


def _order_problem(stages: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with the last stage; behind a reward model stands a stage that asks it."""
    place = len(stages) - 1
    for problem in check_stage_order([*stages, _stage("merge", "lora"), _stage("grpo", "lora", asks=True)]):
        if problem.key.startswith(f"stages.{place}."):
            return f"{problem.rule}; {problem.fix} (`{problem.problem_class}`)"
    return None


def _stage(kind: str, adapter: str, *, asks: bool = False) -> dict[str, Any]:
    if kind == "merge":
        return {"kind": kind}
    more = {"rewards": [{"kind": "reward_model" if asks else "numeric"}]} if kind == "grpo" else {}
    return {"kind": kind, "adapter": {"kind": adapter}, **more}


def _words(model: type[BaseModel], name: str, path: tuple[str | int, ...], values: Any) -> str:
    """Return the allowed values in words; an object without a kind has a table of its own."""
    annotation = model.model_fields[name].rebuild_annotation()
    words = re.sub(r" with `kind` one of [A-Z]\w+$", "", allowed_words(path, values))
    if words:
        return words
    null = " or null" if "None" in str(annotation) else ""
    return f"an object (`{name}` below){null}" if models(annotation) else f"any value{null}"


def _attributes(doc: str) -> dict[str, str]:
    """Return field -> text of the `Attributes:` part of a docstring; one text may explain several fields."""
    _, _, part = inspect.cleandoc(doc).partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in part.splitlines():
        match = re.match(r"^ {4}(\w+(?:, \w+)*): (.*)", line)
        if match:
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.startswith(" " * 8):
            for name in names:
                found[name] += " " + line.strip()
        elif line.strip():
            break
    return found
