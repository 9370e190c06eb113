"""The examples of docs/recipes.md: configs of each kind of stage, data rows, and mistakes with their answers.

Every config is read by the validator, every row is written by the product's own writer, and every answer
comes from the rules. What no file alone can show (a teacher with another vocabulary) is a case with facts.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rdagent_ft.data.preference_write import write_trl_kto, write_trl_pairs, write_trl_prompts
from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.data.rows import Message, make_row
from rdagent_ft.data.write import write_trl_sft, write_trl_turns
from rdagent_ft.errors import Problem
from rdagent_ft.recipe.llamafactory.fits import fit_problems
from rdagent_ft.recipe.parse import load_recipe
from rdagent_ft.recipe.rules import RuleFacts, check_recipe
from rdagent_ft.recipe.stages import STAGE_CLASSES
from rdagent_ft.recipe.validate import read_recipe, validate_text

Values = dict[str, Any]
BROKEN = Path(__file__).resolve().parent.parent / "tests" / "recipe" / "broken"

MINIMAL: dict[str, str] = {
    "sft": "stages:\n  - {kind: sft}\n",
    "dpo": "stages:\n  - {kind: sft}\n  - {kind: merge}\n  - {kind: dpo}\n",
    "kto": "stages:\n  - {kind: sft}\n  - {kind: merge}\n  - {kind: kto}\n",
    "reward": "stages:\n  - {kind: reward}\n  - {kind: grpo, rewards: [{kind: reward_model}]}\n",
    "grpo": "stages:\n  - {kind: grpo, rewards: [{kind: numeric}]}\n",
    "distill": "stages:\n  - {kind: distill, teacher: teacher-8b}\n",
    "merge": "stages:\n  - {kind: sft}\n  - {kind: merge}\n",
}
"""The shortest recipe that has such a stage."""

_FULL_CHOICES: dict[str, Values] = {
    "sft": {"adapter": {"kind": "lora", "r": 32, "alpha": 64}, "epochs": 3, "neftune_noise_alpha": 5.0},
    "dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "pairs": "sampled"},
    "kto": {"undesirable_weight": 1.3},
    "reward": {},
    "grpo": {
        "rewards": [{"kind": "math"}, {"kind": "think_format", "weight": 0.2}],
        "epsilon_high": 0.28,
        "mask_truncated_completions": True,
    },
    "distill": {"teacher": "teacher-8b", "adapter": {"kind": "lora", "r": 128, "alpha": 32}},
    "merge": {},
}
CHAINS: dict[str, str] = {
    "The pipeline of preference work": (
        "stages:\n  - {kind: sft, epochs: 3, warmup_ratio: 0.1}\n  - {kind: merge}\n"
        "  - {kind: dpo, loss_type: [sigmoid, sft], loss_weights: [1.0, 0.2]}\n  - {kind: merge}\n"
    ),
    "A reward model, and training towards it": (
        "stages:\n  - {kind: sft}\n  - {kind: merge}\n  - {kind: reward}\n"
        "  - kind: grpo\n    beta: 0.02\n    rewards: [{kind: reward_model}, {kind: exact, weight: 0.5}]\n"
    ),
    "All weights in every stage: no merge is needed": (
        "stages:\n  - {kind: sft, adapter: {kind: full}, learning_rate: 2e-5}\n"
        "  - {kind: dpo, adapter: {kind: full}, learning_rate: 5e-7}\n"
    ),
    "Distillation from weights, then rewards": (
        "stages:\n  - {kind: sft}\n  - {kind: merge}\n  - {kind: distill, teacher: teacher-8b}\n"
        "  - {kind: merge}\n  - {kind: grpo, rewards: [{kind: numeric}, {kind: think_format, weight: 0.2}]}\n"
    ),
    "Distillation from an endpoint: a teacher writes the rows": (
        "data:\n  teacher: {n_samples: 4, temperature: 0.7, keep: correct}\nstages:\n  - {kind: sft}\n"
    ),
}


class Mistake(NamedTuple):
    """A problem and the kind of the stage that it is about; None for one that concerns the whole recipe."""

    kind: str | None
    problem: Problem


class _Case(NamedTuple):
    stages: list[Values]
    facts: RuleFacts


_SFT: Values = {"kind": "sft"}
_GRPO: Values = {"kind": "grpo", "rewards": [{"kind": "numeric"}]}
_ASKS: Values = {"kind": "grpo", "rewards": [{"kind": "reward_model"}]}
_CASES = (
    _Case([_SFT], RuleFacts(n_train_rows=10)),
    _Case([{**_SFT, "max_length": 8192}], RuleFacts(max_positions=4096)),
    _Case([{**_SFT, "optim": "adamw_8bit"}], RuleFacts(bitsandbytes=False)),
    _Case([{**_SFT, "adapter": {"kind": "lora", "quantization": "nf4"}}], RuleFacts(device="cpu")),
    _Case([{**_SFT, "attn_implementation": "kernels-community/flash-attn2"}], RuleFacts(device="cpu")),
    _Case([{**_SFT, "adapter": {"kind": "lora", "r": 128}}], RuleFacts(serve_max_lora_rank=64)),
    _Case([{**_SFT, "effective_batch": 4, "micro_batch": 2}], RuleFacts(n_gpus=4)),
    _Case([{**_SFT, "train_on": "assistant_turns"}], RuleFacts(has_training_template=False)),
    _Case([{"kind": "dpo"}], RuleFacts(has_preferences=False)),
    _Case([{"kind": "dpo", "pairs": "sampled"}], RuleFacts(has_scorer=False)),
    _Case([{"kind": "kto"}], RuleFacts(has_preferences=False)),
    _Case([{"kind": "reward"}, _ASKS], RuleFacts(has_preferences=False)),
    _Case([{**_GRPO, "effective_batch": 3}], RuleFacts(n_gpus=5)),
    _Case([{**_GRPO, "use_vllm": True}], RuleFacts(device="cuda", vllm=False)),
    _Case([{**_GRPO, "rewards": [{"kind": "math"}]}], RuleFacts(math_verify=False)),
    _Case([{**_GRPO, "rewards": [{"kind": "code"}]}], RuleFacts(has_tests=False)),
    _Case([{**_GRPO, "rewards": [{"kind": "code"}]}], RuleFacts(can_contain=False)),
    _Case([{"kind": "distill", "teacher": "t"}], RuleFacts(teacher_vocab_sizes={"t": None})),
    _Case(
        [{"kind": "distill", "teacher": "t"}],
        RuleFacts(teacher_vocab_sizes={"t": 151_936}, vocab_size=32_000),
    ),
)
_LLAMAFACTORY: dict[str, list[Values]] = {
    "sft": [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"adapter": {"kind": "lora", "quantization": "nf4"}},
        {"optim": "adamw_8bit"},
    ],
    "dpo": [
        {"loss_type": ["robust"]},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [2.0, 1.0]},
        {"loss_type": ["hinge"], "label_smoothing": 0.1},
        {"precompute_ref_log_probs": True},
    ],
    "kto": [],
    "reward": [{}],
    "grpo": [{}],
    "distill": [{}],
    "merge": [],
}
_PROMPT = (Message(role="user", content="Colour red, animal cat. What is it?"),)


def full_config(kind: str) -> str:
    """Return a recipe with every field of a stage of this kind written out. Raises `RecipeError`."""
    before = [{"kind": "sft"}, {"kind": "merge"}] if kind in ("dpo", "kto") else []
    after = [_ASKS] if kind == "reward" else []
    if kind == "merge":
        before = [{"kind": "sft"}]
    wanted = [*before, {"kind": kind, **_FULL_CHOICES[kind]}, *after]
    recipe = load_recipe({"stages": wanted})
    place = len(before)
    stage = recipe.stages[place].model_dump(mode="json")
    lines = ["stages:", *(f"  - {_flow(entry)}" for entry in before)]
    first = True
    for name in ("kind", *(name for name in stage if name != "kind")):
        lines.append(f"  {'-' if first else ' '} {name}: {_flow(stage[name])}")
        first = False
    lines += [f"  - {_flow(entry)}" for entry in after]
    return "\n".join(lines) + "\n"


def checked(text: str) -> str:
    """Return a config that the validator takes. Raises `ValueError` with the problems of another one."""
    found = read_recipe(text, "recipe.yaml")
    if isinstance(found, tuple):
        raise ValueError(f"an example does not validate: {found}\n{text}")
    return text


def data_rows(kind: str) -> list[tuple[str, str]]:
    """Return what a stage of this kind reads: (what, JSON lines), as the program's writers make it."""
    row = make_row((*_PROMPT, Message(role="assistant", content="cat is red")), meta={"level": 1})
    pair = PreferenceRow(item_id="0" * 16, prompt=_PROMPT, chosen="cat is red", rejected="dog is red")
    turns = make_row(
        (
            *row.messages,
            Message(role="user", content="And its name?"),
            Message(role="assistant", content="Tom"),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        found: list[tuple[str, str]] = []
        for name, prompt_format in (("plain prompts", "plain"), ("chat prompts", "chat")):
            if kind == "sft":
                write_trl_sft(file, [row], prompt_format)
            elif kind in ("dpo", "reward"):
                write_trl_pairs(file, [pair], prompt_format)
            elif kind == "kto":
                write_trl_kto(file, [pair], prompt_format)
            elif kind in ("grpo", "distill"):
                write_trl_prompts(file, [row], prompt_format)
            else:
                return []
            found.append((name, file.read_text(encoding="utf-8")))
        if kind == "sft":
            write_trl_turns(file, [turns])
            found.append(("`train_on: assistant_turns`", file.read_text(encoding="utf-8")))
    return found


def mistakes() -> list[Mistake]:
    """Return what is refused before anything starts: the corpus of broken recipes, then cases with facts."""
    found: list[Mistake] = []
    for line in csv.DictReader((BROKEN / "EXPECTED.tsv").read_text("utf-8").splitlines(), delimiter="\t"):
        if not line["file"].startswith("recipe"):
            continue
        text = (BROKEN / line["file"]).read_text(encoding="utf-8")
        stages = _stages(text)
        report = validate_text(text, name=line["file"])
        found += [Mistake(_kind_at(problem.key, stages), problem) for problem in report.problems]
    for case in _CASES:
        problems = check_recipe(load_recipe({"stages": case.stages}), case.facts)
        if not problems:
            raise ValueError(f"no rule is broken by {case}")
        found += [Mistake(_kind_at(problem.key, case.stages), problem) for problem in problems]
    return found


def llamafactory_refusals(kind: str) -> list[Problem]:
    """Return what of a stage of this kind LLaMA-Factory refuses, each by its own answer."""
    found: dict[tuple[str, str], Problem] = {}
    for changes in _LLAMAFACTORY[kind]:
        needed = {key: value for key, value in _FULL_CHOICES[kind].items() if key in ("rewards", "teacher")}
        stage = STAGE_CLASSES[kind].model_validate({**needed, **changes})
        recipe = load_recipe({"stages": [{"kind": "sft"}]}).model_copy(update={"stages": (stage,)})
        problems = fit_problems(recipe)
        if not problems:
            raise ValueError(f"LLaMA-Factory takes {kind} with {changes}")
        found |= {(problem.key, problem.rule): problem for problem in problems}
    return list(found.values())


def _stages(text: str) -> Any:
    values = yaml.safe_load(text)
    return values.get("stages") if isinstance(values, dict) else None


def _kind_at(key: str, stages: Any) -> str | None:
    """Return the kind of the stage that a problem's key names; None where it has no known kind."""
    parts = key.split(".")
    if parts[0] != "stages" or len(parts) < 2 or not isinstance(stages, list):
        return None
    stage = stages[int(parts[1])]
    kind = stage.get("kind") if isinstance(stage, dict) else None
    return kind if kind in STAGE_CLASSES else None


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()
