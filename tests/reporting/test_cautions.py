"""What limits a claim is said under it, from recorded numbers only."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_run import comparison, make_run

from rdagent_ft.evaluation.guards import judge_guards
from rdagent_ft.reporting.cautions import cautions
from rdagent_ft.reporting.facts import claim_facts
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.records import ClaimOutput, CleanSubset, SeedTraining
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.reporting.view import RunView


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return open_run(make_run(tmp_path_factory.mktemp("run")))


def said(view: RunView, **changes: object) -> str:
    claim = view.claim
    assert isinstance(claim, ClaimOutput)
    return " ".join(cautions(view, claim.model_copy(update=changes)))


def test_a_plain_claim_says_nothing_of_seeds_guards_or_copies(view: RunView) -> None:
    text = said(view)
    assert not any(word in text for word in ("seed", "near cop", "Forgetting", "noise"))


def test_near_copies_are_counted_and_the_rest_is_compared(view: RunView) -> None:
    left = comparison(0.4, 0.7, 590, "test", "improved")
    text = said(view, clean=CleanSubset(n_near=10, comparison=left))
    assert "10 test items have near copies in the training data" in text
    assert "+30.0 points" in text
    assert "590 items: improved" in text
    assert "which leaves none" in said(view, clean=CleanSubset(n_near=1))


def test_guards_name_forgetting_and_what_is_not_shown(view: RunView) -> None:
    lost = comparison(0.5, 0.3, 400, "test", "regressed", "gsm8k", se=0.02)
    vague = comparison(0.5, 0.5, 30, "test", "inconclusive", "gsm8k", se=0.05)
    fine = comparison(0.5, 0.5, 900, "test", "equivalent", "gsm8k", se=0.004)
    claim = view.claim
    assert isinstance(claim, ClaimOutput)
    for found, wanted in (
        (lost, "Forgetting: gsm8k got worse"),
        (vague, "not shown to be unharmed"),
        (fine, ""),
    ):
        paired = found.model_copy(update={"p_value": 0.01})
        beside = claim.reported["gsm8k"].model_copy(update={"comparison": paired})
        text = said(view, reported={"gsm8k": beside}, guards=judge_guards({"gsm8k": paired}, 0.03))
        assert wanted in text
        assert ("gsm8k" in text) == bool(wanted)


def test_further_seeds_are_told_with_the_model_itself(view: RunView) -> None:
    own = comparison(0.4, 0.6, 600, "test", "improved")
    failed = Failure(failure_class="train.oom", blame="environment", message="out of memory")
    seeds = (SeedTraining(seed=43, delta=0.1), SeedTraining(seed=44, failure=failed))
    text = said(view, own=own, seeds=seeds)
    assert "trained 3 times" in text
    assert "+20.0 points" in text
    assert "seed 43: +10.0" in text
    assert "seed 44: failed" in text
    assert "every one failed" in said(view, seeds=seeds[1:])


def test_noise_of_the_engine_is_shown_when_there_is_some(view: RunView) -> None:
    assert view.baseline is not None
    again = comparison(0.431, 0.435, 500, "val", "inconclusive", se=0.003)
    noisy = view.baseline.model_copy(update={"again": again})
    steps = tuple(
        record.model_copy(update={"output": noisy}) if record.step == "baseline" else record
        for record in view.steps
    )
    changed = view.model_copy(update={"steps": steps})
    assert "differs from itself by +0.4 points" in said(changed)


def test_the_claim_names_every_file_with_its_answers(tmp_path: Path) -> None:
    facts = claim_facts(open_run(make_run(tmp_path)))
    assert facts.evidence[0] == "baseline/eval/heldout-test/samples.jsonl"
    assert [file.split("/")[0] for file in facts.evidence] == ["baseline", "loops", "baseline", "loops"]
