"""Which judges pass the gate: perfect, biased, contrary, mute, interrupted; and what the report says."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply, Status
from judge_server import built, by, gold_rule, says

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.judge.calibration import Calibration, Gate, calibrate, cohen_kappa
from rdagent_ft.evaluation.judge.calibration_sets import (
    CalibrationSet,
    LabelledPair,
    read_llmbar,
    read_pairs,
    smoke_set,
)
from rdagent_ft.evaluation.judge.status import judge_report, skipped_report
from rdagent_ft.evaluation.judge.values import JudgeHealth


def made_set(name: str, kind: Any, n: int) -> CalibrationSet:
    dice = random.Random(name)
    pairs = [
        LabelledPair(
            input=f"{name} task {i}", output_1=f"one {i}", output_2=f"two {i}", label=dice.choice((1, 2))
        )
        for i in range(n)
    ]
    return CalibrationSet(name=name, kind=kind, pairs=tuple(pairs))


NATURAL = made_set("Natural", "natural", 20)
ADVERSARIAL = [made_set("Adversarial_A", "adversarial", 8), made_set("Adversarial_B", "adversarial", 8)]
SETS = [NATURAL, *ADVERSARIAL]
GATE = Gate(min_pairs=16)
N_ASKED = 2 * 36
FINE = JudgeHealth(n_asked=100, n_unscored=0)


def measured(step: Any, folder: Path, sets: Any = SETS, **settings: Any) -> tuple[Calibration, Any, int]:
    with FakeOpenAI(step) as server:
        judge = built(server, folder, **settings)[0].judge
        return calibrate(judge, sets, GATE), judge, server.n_requests


def by_name(calibration: Calibration) -> dict[str, Any]:
    return {one.name: one for one in calibration.sets}


def test_a_perfect_judge_passes_and_is_measured_once(tmp_path: Path) -> None:
    with FakeOpenAI(by(gold_rule(*SETS))) as server:
        judge = built(server, tmp_path)[0].judge
        calibration = calibrate(judge, SETS, GATE)
        assert server.n_requests == N_ASKED
        assert calibrate(built(server, tmp_path)[0].judge, SETS, GATE) == calibration
        assert server.n_requests == N_ASKED
    assert calibration.passed
    assert calibration.status == "passed"
    assert calibration.reasons == ()
    assert calibration.kappa == 1.0
    natural = by_name(calibration)["natural"]
    assert (natural.accuracy, natural.flip_rate, natural.first_position_rate) == (1.0, 0.0, 0.5)
    assert by_name(calibration)["adversarial"].n == 16
    assert judge_report(judge, FINE, calibration).status == "ok"
    assert judge_report(judge, FINE, calibration).decides


def test_a_judge_that_likes_the_first_place_fails_by_its_flips(tmp_path: Path) -> None:
    calibration, judge, _ = measured(by(lambda texts: "first"), tmp_path)
    natural = by_name(calibration)["natural"]
    assert (natural.accuracy, natural.flip_rate, natural.first_position_rate) == (0.5, 1.0, 1.0)
    assert natural.kappa == pytest.approx(0.0)
    assert calibration.status == "failed"
    assert any("flip rate on natural is 1.000, above 0.1" in reason for reason in calibration.reasons)
    report = judge_report(judge, FINE, calibration)
    assert (report.status, report.decides) == ("failed_gate", False)


def test_flips_alone_fail_the_gate(tmp_path: Path) -> None:
    right = gold_rule(*SETS)

    def rule(texts: dict[str, str]) -> str:
        is_biased = int(texts["instruction"].split()[-1]) % 5 == 0 and texts["instruction"][0] == "N"
        return "first" if is_biased else right(texts)

    calibration, _, _ = measured(by(rule), tmp_path)
    assert [r for r in calibration.reasons if "flip" not in r] == []
    assert by_name(calibration)["natural"].accuracy == pytest.approx(0.9)
    assert by_name(calibration)["natural"].flip_rate == pytest.approx(0.2)
    assert calibration.status == "failed"


def test_a_contrary_judge_fails_without_a_flip(tmp_path: Path) -> None:
    calibration, _, _ = measured(by(gold_rule(*SETS, is_contrary=True)), tmp_path)
    natural = by_name(calibration)["natural"]
    assert (natural.accuracy, natural.flip_rate) == (0.0, 0.0)
    assert calibration.status == "failed"
    assert calibration.kappa == pytest.approx(-1.0)
    assert not any("flip" in reason for reason in calibration.reasons)


def test_a_judge_of_ties_is_right_about_nothing(tmp_path: Path) -> None:
    calibration, _, _ = measured(by(lambda texts: "tie"), tmp_path)
    natural = by_name(calibration)["natural"]
    assert (natural.accuracy, natural.flip_rate, natural.first_position_rate) == (0.0, 0.0, None)
    assert calibration.status == "failed"


@pytest.mark.parametrize("text", ["The answer is wrong. B", "CORRECT", "", '{"verdict": "first"} ok'])
def test_a_judge_of_garbage_fails_and_is_stopped(text: str, tmp_path: Path) -> None:
    calibration, judge, n_requests = measured(Reply(text), tmp_path)
    assert calibration.status == "failed"
    assert "gave no verdict" in calibration.reasons[0]
    assert by_name(calibration)["natural"].accuracy is None
    assert n_requests <= 3 * 24
    assert judge_report(judge, FINE, calibration).status == "failed_gate"


@pytest.mark.parametrize("step", [Status(429, "slow down"), Status(503)], ids=str)
def test_an_outage_is_no_finding_and_is_measured_again(step: Status, tmp_path: Path) -> None:
    is_healed = threading.Event()
    good = by(gold_rule(*SETS))
    with FakeOpenAI(lambda body: good(body) if is_healed.is_set() else step) as server:
        judge = built(server, tmp_path, llm_max_wait=0.0)[0].judge
        calibration = calibrate(judge, SETS, GATE)
        assert calibration.status == "incomplete"
        assert not calibration.passed
        report = judge_report(judge, FINE, calibration)
        assert (report.status, report.decides) == ("uncalibrated", False)
        is_healed.set()
        assert calibrate(built(server, tmp_path)[0].judge, SETS, GATE).passed


def test_money_that_ends_is_no_finding(tmp_path: Path) -> None:
    calibration, judge, _ = measured(by(gold_rule(*SETS)), tmp_path, max_cost=0.012)
    assert calibration.status == "incomplete"
    assert 0 < calibration.health.unscored["budget"] < N_ASKED
    assert "ended early" in calibration.reasons[0]
    assert "booked" in judge.ended_by


@pytest.mark.parametrize(
    "sets", [[NATURAL], ADVERSARIAL, [], [made_set("Natural", "natural", 5), *ADVERSARIAL]]
)
def test_without_enough_labelled_data_nothing_passes(sets: list[CalibrationSet], tmp_path: Path) -> None:
    calibration, judge, _ = measured(by(gold_rule(*SETS, *sets)), tmp_path, sets)
    assert calibration.status == "uncalibrated"
    assert judge_report(judge, FINE, calibration).status == "uncalibrated"


def test_the_own_set_cannot_pass_a_judge_alone_and_can_fail_it(tmp_path: Path) -> None:
    smoke = smoke_set()
    assert len(smoke.pairs) + len(smoke.answers) == 40
    assert sum(pair.label == 1 for pair in smoke.pairs) * 2 == len(smoke.pairs)
    good, _, _ = measured(by(gold_rule(smoke)), tmp_path / "a", [smoke])
    assert good.status == "uncalibrated"
    assert by_name(good)["smoke"].accuracy == 1.0
    with_rest, _, _ = measured(by(gold_rule(smoke, *SETS)), tmp_path / "b", [smoke, *SETS])
    assert with_rest.passed
    gold = gold_rule(smoke, *SETS)
    yes, _, _ = measured(
        by(lambda texts: "correct" if "answer" in texts else gold(texts)), tmp_path / "c", [smoke]
    )
    assert yes.status == "failed"
    assert any("smoke" in reason for reason in yes.reasons)


def test_a_changed_set_or_judge_is_measured_anew(tmp_path: Path) -> None:
    with FakeOpenAI(by(gold_rule(*SETS))) as server:
        first = calibrate(built(server, tmp_path)[0].judge, SETS, GATE)
        other = calibrate(built(server, tmp_path, judge_model="judge-2")[0].judge, SETS, GATE)
        fewer = calibrate(built(server, tmp_path)[0].judge, SETS[:2], GATE)
    assert len({first.key, other.key, fewer.key}) == 3
    assert fewer.status == "uncalibrated"


def test_kappa() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a")] * 3) == 0.0
    # Textbook example (Cohen 1960, as on two raters of 50 grants): p_o .70, p_e .50.
    table = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(table) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("health", "status"),
    [
        (JudgeHealth(n_asked=100, n_unscored=2, unscored={"cannot_judge": 2}), "ok"),
        (JudgeHealth(n_asked=100, n_unscored=3, unscored={"cannot_judge": 3}), "degraded"),
        (JudgeHealth(n_asked=100, n_unscored=10, unscored={"malformed": 10}), "degraded"),
        (JudgeHealth(n_asked=100, n_unscored=11, unscored={"malformed": 11}), "invalid"),
        (JudgeHealth(n_asked=0, n_unscored=0), "ok"),
    ],
)
def test_missing_verdicts_change_the_status(health: JudgeHealth, status: str, tmp_path: Path) -> None:
    with FakeOpenAI() as server:
        judge = built(server, tmp_path)[0].judge
    passed = Calibration(
        judge=judge.identity,
        key="k",
        status="passed",
        passed=True,
        reasons=(),
        sets=(),
        kappa=1.0,
        health=FINE,
    )
    report = judge_report(judge, health, passed)
    assert (report.status, report.decides) == (status, status == "ok")


def test_no_judge_is_skipped_and_an_unmeasured_one_does_not_decide(tmp_path: Path) -> None:
    assert (skipped_report().status, skipped_report().decides) == ("skipped", False)
    with FakeOpenAI(says("correct")) as server:
        report = judge_report(built(server, tmp_path)[0].judge, FINE, None)
    assert (report.status, report.decides) == ("uncalibrated", False)


def test_a_report_survives_json(tmp_path: Path) -> None:
    calibration, judge, _ = measured(by(gold_rule(*SETS)), tmp_path)
    report = judge_report(judge, FINE, calibration)
    assert type(report).model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"input": "a"}]',
        '[{"input":"a","output_1":"b","output_2":"c","label":3}]',
        "[" * 9999,
    ],
    ids=range(6),
)
def test_a_file_of_another_form_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "Natural.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"Natural\.json"):
        read_pairs(path, "natural")


def test_llmbar_files_are_found_by_name(tmp_path: Path) -> None:
    assert read_llmbar(tmp_path) == []
    rows = [{"input": "a", "output_1": "b", "output_2": "c", "label": 2, "more": 1}]
    for name in ("Natural", "Adversarial_X", "processed_Y"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    assert [(s.name, s.kind) for s in read_llmbar(tmp_path)] == [
        ("Natural", "natural"),
        ("Adversarial_X", "adversarial"),
    ]


@pytest.mark.real_data
def test_real_labels_pass_a_judge_that_knows_them_and_fail_a_contrary_one(
    shared_data: Path, tmp_path: Path
) -> None:
    sets = read_llmbar(shared_data / "llmbar")
    assert sum(len(s.pairs) for s in sets if s.kind == "natural") == 100
    assert sum(len(s.pairs) for s in sets if s.kind == "adversarial") == 319
    sets = [s for s in sets if s.name in ("Natural", "Adversarial_GPTOut")]
    right, wrong = gold_rule(*sets), gold_rule(*sets, is_contrary=True)
    known = {pair.input.strip() for s in sets if s.kind == "natural" for pair in s.pairs}
    good, _, _ = measured(by(right), tmp_path / "good", sets)
    assert good.passed
    half, _, _ = measured(
        by(lambda texts: (right if texts["instruction"] in known else wrong)(texts)), tmp_path / "half", sets
    )
    assert by_name(half)["natural"].accuracy == 1.0
    assert by_name(half)["adversarial"].accuracy == 0.0
    assert half.status == "failed"
    assert any("accuracy on adversarial" in reason for reason in half.reasons)
