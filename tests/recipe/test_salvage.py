"""All problems of a recipe are told together, and none that only a stand-in value would have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from rdagent_ft.recipe.validate import validate_text


def found(*stages: dict[str, Any], **more: Any) -> set[tuple[str, str]]:
    report = validate_text(yaml.safe_dump({"stages": list(stages), **more}), name="recipe.yaml")
    return {(problem.key, problem.problem_class) for problem in report.problems}


PACKED = {"kind": "sft", "packing": True, "attn_implementation": "sdpa"}
PACKING = ("stages.0.packing", "config.packing")


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"max_steps": -3}, ("stages.0.max_steps", "config.bad_value")),
        ({"learningrate": 1e-4}, ("stages.0.learningrate", "config.unknown_key")),
        ({"adapter": {"kind": "lora", "r": 0}}, ("stages.0.adapter.r", "config.bad_value")),
        ({"output_dir": "x"}, ("stages.0.output_dir", "config.protected_key")),
    ],
)
def test_a_wrong_value_does_not_hide_a_broken_rule(wrong: dict[str, Any], problem: tuple[str, str]) -> None:
    assert found(PACKED) == {PACKING}
    assert found(PACKED | wrong) == {PACKING, problem}


def test_rules_of_several_stages_and_wrong_values_come_together() -> None:
    dpo = {"kind": "dpo", "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0], "max_length": "long"}
    assert found(PACKED | {"epochs": 0}, {"kind": "merge"}, dpo) == {
        PACKING,
        ("stages.0.epochs", "config.bad_value"),
        ("stages.2.max_length", "config.bad_value"),
        ("stages.2.loss_weights", "config.conflict"),
    }


def test_what_rests_on_a_wrong_value_is_not_told() -> None:
    """The default that stands in is not what the person will write."""
    assert found({"kind": "sft", "micro_batch": 5}) == {("stages.0.micro_batch", "config.conflict")}
    assert found({"kind": "sft", "micro_batch": 5, "effective_batch": 0}) == {
        ("stages.0.effective_batch", "config.bad_value")
    }
    assert found({"kind": "sft", "packing": "perhaps", "attn_implementation": "sdpa"}) == {
        ("stages.0.packing", "config.bad_value")
    }


def test_nothing_stands_in_for_a_missing_value_or_an_unknown_kind() -> None:
    assert found(PACKED, {"kind": "ppo"}) == {("stages.1.kind", "config.bad_value")}
    assert ("stages.1.teacher", "config.missing_key") in found(PACKED, {"kind": "distill"})
