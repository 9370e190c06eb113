"""docs/recipes.md: each kind of stage with configs, fields, data, priors and what can go wrong.

The sentences around the generated parts are written by hand; the parts are made here from the classes, the
rules and the writers, so that the page cannot say what the code does not do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from recipe_after import health_lines, learnt_lines, repair_lines, training_failures
from recipe_examples import (
    CHAINS,
    MINIMAL,
    Mistake,
    checked,
    data_rows,
    full_config,
    llamafactory_refusals,
    mistakes,
)
from recipe_tables import KINDS, cell, field_table, order_lines, prior_table, priors_of

from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.fields import inner_type, models
from rdagent_ft.recipe.llamafactory.render import STAGE_NAMES
from rdagent_ft.recipe.rewards import Reward
from rdagent_ft.recipe.schema import MAX_STAGES
from rdagent_ft.recipe.stages import STAGE_CLASSES, FullAdapter, LoraAdapter, TrainedStage
from rdagent_ft.recipe.usual_values import usual_rates  # fmt: skip

_SHARED = frozenset(TrainedStage.model_fields)
_ORDER = ("chain.stage_order", "chain.unmerged_adapter")
_NAMES = ("config.unknown_key", "config.renamed_key", "config.missing_key", "config.protected_key")


def recipes_page(path: Path) -> str:
    """Return the page with its generated parts as they would be now.

    Raises `LookupError` when the markers of a part are not there once, or a field has no meaning;
    `ValueError` when an example is not what it should be.
    """
    text = path.read_text(encoding="utf-8")
    for name, lines in _parts().items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = "\n".join(["", *lines, "", ""])
        text, n_found = pattern.subn(lambda match, body=body: match[1] + body + match[2], text)
        if n_found != 1:
            raise LookupError(f"{path} holds {n_found} parts {name}")
    return text


def _parts() -> dict[str, list[str]]:
    found = mistakes()
    return {
        "shared": _shared(found),
        **{kind: _kind(kind, found) for kind in KINDS},
        "chains": _chains(),
        "rewards": _rewards(),
        "data": _data(),
        "whole": _mistake_table([each for each in found if each.kind is None or _is_name(each)]),
        "repairs": repair_lines(),
        "learnt": learnt_lines(),
    }


def _shared(found: list[Mistake]) -> list[str]:
    stage = {"stages": [{"kind": "sft"}]}
    lora = {"stages": [{"kind": "sft", "adapter": {"kind": "lora"}}]}
    place = ("stages", 0)
    wrong = [each for each in found if each.kind and _is_shared(each)]
    return [
        *field_table(TrainedStage, place, stage),
        "",
        f"**`adapter`** is `kind: full` ({_first_line(FullAdapter)}) or `kind: lora`:",
        "",
        *field_table(LoraAdapter, (*place, "adapter"), lora),
        "",
        "**What is known** for every kind of training:",
        "",
        *prior_table([prior for prior in priors_of(None) if not (prior.path or "").startswith("data.")]),
        "",
        "**Refused before anything starts**, for every kind of training:",
        "",
        *_mistake_table(wrong),
    ]


def _kind(kind: str, found: list[Mistake]) -> list[str]:
    lines = [*_yaml("The shortest recipe:", MINIMAL[kind])]
    if kind == "merge":
        lines += ["", "It has no fields. Where it cannot stand: [chains](#chains)."]
    else:
        lines += ["", *_yaml("With every field written out:", full_config(kind)), "", *_own_fields(kind)]
    lines += _rows_of(kind)
    priors = priors_of(kind)
    if priors:
        lines += ["", f"**What is known** ({_rates(kind)}):", "", *prior_table(priors)]
    own = [each for each in found if each.kind == kind and not _is_shared(each)]
    own = [each for each in own if each.problem.problem_class not in _ORDER and not _is_name(each)]
    lines += ["", "**Refused before anything starts:**", "", *_mistake_table(own)] if own else []
    lines += ["", "**When it fails in training:**", "", *training_failures(kind)]
    if kind != "merge":
        lines += ["", "**What is watched:**", "", *health_lines(kind)]
    return [*lines, "", *_llamafactory(kind)]


def _own_fields(kind: str) -> list[str]:
    values = {"stages": [{"kind": kind}]}
    model = STAGE_CLASSES[kind]
    table = field_table(model, ("stages", 0), values, base=TrainedStage)
    lines = ["Its own fields, and shared ones with another default:", "", *table]
    for name, field in model.model_fields.items():
        inner = models(field.rebuild_annotation())
        if name not in _SHARED and len(inner) == 1:
            (one,) = inner.values()
            lines += ["", f"`{name}`: {cell(_first_line(one))}", ""]
            lines += field_table(one, ("stages", 0, name), values)
    return lines


def _rows_of(kind: str) -> list[str]:
    lines: list[str] = []
    for what, text in data_rows(kind):
        shown = "\n".join(json.dumps(json.loads(line), ensure_ascii=False) for line in text.splitlines())
        lines += ["", f"Data, {what}:", "", "```json", shown, "```"]
    return lines


def _rates(kind: str) -> str:
    words: list[str] = []
    for adapter in ("lora", "full"):
        stage = STAGE_CLASSES[kind].model_validate(
            {"adapter": {"kind": adapter}, **({"rewards": [{"kind": "exact"}]} if kind == "grpo" else {}),
             **({"teacher": "t"} if kind == "distill" else {})}
        )  # fmt: skip
        usual = usual_rates(stage, None)
        if usual is not None:
            name = "LoRA" if adapter == "lora" else "all weights"
            words.append(f"{name} {usual.low:g} to {usual.high:g} by `{usual.prior_id}`")
    return "rates outside are warned about: " + "; ".join(words)


def _llamafactory(kind: str) -> list[str]:
    refused = llamafactory_refusals(kind)
    if kind == "merge":
        return ["**With LLaMA-Factory:** its own export, from `templates/llamafactory/export.yaml.j2`."]
    if kind not in STAGE_NAMES:
        (no,) = refused
        return [f"**With LLaMA-Factory:** refused, it {no.rule} (`{no.problem_class}`); {no.fix}."]
    name = STAGE_NAMES[kind]
    lines = [f"**With LLaMA-Factory:** its stage `{name}`, from `templates/llamafactory/{name}.yaml.j2`."]
    if refused:
        lines += ["Refused there:", "", *_problem_table([(problem, problem.key) for problem in refused])]
    return lines


def _chains() -> list[str]:
    lines = [f"At most {MAX_STAGES} stages.", "", *order_lines()]
    for what, text in CHAINS.items():
        lines += ["", *_yaml(f"{what}:", text)]
    return lines


def _rewards() -> list[str]:
    lines = ["| kind | scores | field | value | default | meaning |", "|---|---|---|---|---|---|"]
    for kind, model in models(Reward).items():
        values = {"stages": [{"kind": "grpo", "rewards": [{"kind": kind}]}]}
        scores = cell(_first_line(model))
        own = [
            row
            for row in field_table(model, ("stages", 0, "rewards", 0), values)[2:]
            if "`weight`" not in row
        ]
        lines += [f"| `{kind}` | {scores} {row}" for row in own or ["| none | | | |"]]
    values = {"stages": [{"kind": "grpo", "rewards": [{"kind": "exact"}]}]}
    weight = field_table(models(Reward)["exact"], ("stages", 0, "rewards", 0), values)
    return [*lines, "", "Every kind has a weight as well:", "", *weight]


def _data() -> list[str]:
    values = {"data": {"where": [{}], "source_weights": [{}], "source_caps": [{}], "teacher": {}}}
    lines = [cell(" ".join(_paragraph(DataMix, 1))), "", *field_table(DataMix, ("data",), values)]
    for name, field in DataMix.model_fields.items():
        annotation = field.rebuild_annotation()
        listed = models(inner_type(annotation, 0, []) or int)
        for model in (*models(annotation).values(), *listed.values()):
            place = ("data", name, 0) if listed else ("data", name)
            here = {"data": {name: [{}] if listed else {}}}
            lines += ["", f"`{name}`: {cell(_first_line(model))}", "", *field_table(model, place, here)]
    known = [prior for prior in priors_of(None) + priors_of("sft") if (prior.path or "").startswith("data.")]
    return [*lines, "", "**What is known:**", "", *prior_table(known)]


def _mistake_table(found: list[Mistake]) -> list[str]:
    return _problem_table([(each.problem, each.problem.key) for each in found])


def _problem_table(found: list[tuple]) -> list[str]:
    """Return problems as rows, each rule once; places in the chain are left out of the keys."""
    lines = ["| class | for example | is wrong, because it | fix |", "|---|---|---|---|"]
    seen: set[tuple[str, str]] = set()
    for problem, key in found:
        name = re.sub(r"^stages\.\d+\.", "", key)
        if (name, problem.rule) in seen:
            continue
        seen.add((name, problem.rule))
        value = json.dumps(problem.value, ensure_ascii=False, default=str)
        value = value if len(value) <= 60 else value[:57] + "…"
        told = " | ".join(cell(text) for text in (problem.rule, problem.fix))
        lines.append(f"| `{problem.problem_class}` | `{name}`: `{cell(value)}` | {told} |")
    return lines


def _is_name(each: Mistake) -> bool:
    """Whether a name is wrong rather than a value."""
    return each.problem.problem_class in _NAMES and _field(each) not in ("rewards", "teacher")


def _is_shared(each: Mistake) -> bool:
    """Whether a value of a shared field is wrong for every kind, not by a rule of one."""
    if _field(each) not in _SHARED or _is_name(each):
        return False
    own_rule = each.kind in ("kto", "grpo") and each.problem.problem_class == "config.conflict"
    return not own_rule


def _field(each: Mistake) -> str:
    return each.problem.key.split(".")[2] if each.problem.key.count(".") >= 2 else ""


def _yaml(what: str, text: str) -> list[str]:
    return [what, "", "```yaml", *checked(text).rstrip("\n").splitlines(), "```"]


def _first_line(model: type) -> str:
    return " ".join((model.__doc__ or "").partition("\n\n")[0].split())


def _paragraph(model: type, place: int) -> list[str]:
    return (model.__doc__ or "").split("\n\n")[place].split()
