"""Rules of held-out rows and of the checkpoint that is kept."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.recipe.parse import load_recipe
from rdagent_ft.recipe.rules import RuleFacts, check_recipe

OWN = {"grpo": {"rewards": [{"kind": "exact"}]}, "distill": {"teacher": "t"}}


def problems(kind: str, fields: dict[str, Any], **facts: Any) -> list[tuple[str, str, str]]:
    recipe = load_recipe({"stages": [{"kind": kind, **OWN.get(kind, {}), **fields}]})
    found = check_recipe(recipe, RuleFacts(**facts))
    return [(one.problem_class, one.key, one.fix) for one in found]


@pytest.mark.parametrize(
    ("kind", "fields", "facts", "key", "fix"),
    [
        ("sft", {"keep": "best"}, {}, "keep", "write `eval_share: 0.05`, or `keep: last`"),
        ("dpo", {"keep": "best"}, {}, "keep", "write `eval_share: 0.05`, or `keep: last`"),
        ("grpo", {"eval_share": 0.1}, {}, "eval_share", "write 0: candidates are compared on val"),
        ("distill", {"eval_share": 0.1, "keep": "best"}, {}, "eval_share",
         "write 0: candidates are compared on val; drop `keep`"),
        ("sft", {"eval_share": 0.05}, {"n_train_rows": 100}, "eval_share", "write 0.08 or more, or 0"),
        ("sft", {"eval_share": 0.3, "effective_batch": 8}, {"n_train_rows": 20}, "eval_share",
         "write 0 and `keep: last`"),
        ("kto", {"eval_share": 0.01}, {"n_preferences": 400}, "eval_share", "write 0.02 or more, or 0"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_class_key_and_fix(
    kind: str, fields: dict[str, Any], facts: dict[str, Any], key: str, fix: str
) -> None:
    assert problems(kind, fields, **facts) == [("config.eval_save", f"stages.0.{key}", fix)]


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_held_out_rows_with_enough_data_break_no_rule(kind: str) -> None:
    fields = {"eval_share": 0.05, "keep": "best"}
    assert problems(kind, fields) == []
    assert problems(kind, fields, n_train_rows=1000, n_preferences=1000) == []


def test_the_batch_must_fit_the_rows_that_are_left() -> None:
    facts = {"n_train_rows": 40}
    assert problems("sft", {"effective_batch": 40, "micro_batch": 8}, **facts) == []
    found = problems("sft", {"effective_batch": 40, "micro_batch": 8, "eval_share": 0.25}, **facts)
    assert found == [("config.conflict", "stages.0.effective_batch", "write at most 30")]


@pytest.mark.parametrize(("share", "works"), [(0.0, True), (0.3, True), (0.31, False), (-0.1, False)])
def test_at_most_three_tenths_can_be_held_out(share: float, works: bool) -> None:
    from rdagent_ft.errors import RecipeError

    if works:
        assert problems("sft", {"eval_share": share}) == []
        return
    with pytest.raises(RecipeError):
        problems("sft", {"eval_share": share})
