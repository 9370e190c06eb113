"""The three jobs on real servers: rule misses, rubrics, pairs; each treats base and tuned alike."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply, Status
from judge_server import built, by, row, says, texts_of

from rdagent_ft.errors import JobError, UserError
from rdagent_ft.evaluation.judge.cascade import judge_both_sides, judge_rule_misses
from rdagent_ft.evaluation.judge.cautions import judge_cautions, model_families
from rdagent_ft.evaluation.judge.grading import grade_both_sides, grade_rows, rubric_score
from rdagent_ft.evaluation.judge.pairwise import AnswerPair, judge_pairs
from rdagent_ft.evaluation.judge.replies import rubric_reply
from rdagent_ft.evaluation.judge.rubrics import read_rubric, rubric_names
from rdagent_ft.evaluation.judge.texts import MAX_TEXT_CHARS, shown_text, visible_text

ANY = by(lambda texts: "correct" if "same" in texts["answer"] else "incorrect")


def side(predictions: list[str], gold: str = "gold") -> list[Any]:
    return [row(f"i{n}", text, gold, float(text == gold)) for n, text in enumerate(predictions)]


def questions(n: int) -> dict[str, str]:
    return {f"i{i}": f"question {i}" for i in range(n)}


# Rule misses


def test_both_scores_stand_side_by_side(tmp_path: Path) -> None:
    rows = side(["gold"] * 20 + ["the same", "wrong", "<think>hm</think>", ""])
    with FakeOpenAI(ANY) as server:
        judged = judge_rule_misses(rows, questions(24), built(server, tmp_path)[0].judge, seed=1)
        shown = sorted(texts_of(request.body)["answer"] for request in server.requests)
    assert judged.rule_rows == tuple(rows)
    assert [r.score for r in judged.judged_rows[20:]] == [1.0, 0.0, 0.0, 0.0]
    assert (judged.n_missed, judged.n_rescued, judged.n_audited) == (4, 1, 1)
    assert judged.rescue_share == pytest.approx(1 / 24)
    assert judged.rescue_rate == pytest.approx(1 / 4)
    assert shown == ["gold", "the same", "wrong"]
    # The judge rejects what the rule accepted here: told, and no score is taken away.
    assert judged.n_audit_disagreed == 1
    assert all(r.score == 1.0 for r in judged.judged_rows[:20])


def test_an_answer_without_verdict_is_unscored_and_never_wrong(tmp_path: Path) -> None:
    with FakeOpenAI(Reply("The answer is wrong. B")) as server:
        judged = judge_rule_misses(
            side(["a", "gold"]), questions(2), built(server, tmp_path)[0].judge, seed=1
        )
    assert [r.score for r in judged.judged_rows] == [None, 1.0]
    assert judged.judged_rows[0].unscored_reason == "judge: malformed"
    assert [r.score for r in judged.rule_rows] == [0.0, 1.0]


def test_rows_that_had_no_score_are_not_shown_to_the_judge(tmp_path: Path) -> None:
    rows = [row("i0", "a", "gold", None, unscored_reason="the prompt was cut")]
    with FakeOpenAI(ANY) as server:
        judged = judge_rule_misses(rows, questions(1), built(server, tmp_path)[0].judge, seed=1)
        assert server.n_requests == 0
    assert judged.judged_rows == tuple(rows)


def test_a_missing_question_text_is_an_error(tmp_path: Path) -> None:
    with FakeOpenAI(ANY) as server, pytest.raises(JobError, match="i0"):
        judge_rule_misses(side(["a"]), {}, built(server, tmp_path)[0].judge, seed=1)


def test_a_gain_made_of_rescues_raises_the_alert(tmp_path: Path) -> None:
    base, tuned = (
        side(["gold"] * 10 + ["wrong"] * 30),
        side(["gold"] * 10 + ["the same"] * 20 + ["wrong"] * 10),
    )
    with FakeOpenAI(ANY) as server:
        judge = built(server, tmp_path)[0].judge
        result = judge_both_sides(base, tuned, questions(40), judge, seed=1, margin=0.02)
        assert result.rule.delta == 0
        assert result.with_judge.delta == pytest.approx(0.5)
        assert result.rescue_difference == pytest.approx(0.5)
        assert (result.base.n_rescued, result.tuned.n_rescued) == (0, 20)
        assert "by the rule alone: +0.0%" in result.alert
        fair = judge_both_sides(
            side(["the same"] * 20 + ["wrong"] * 20), side(["the same"] * 20 + ["gold"] * 20),
            questions(40), judge, seed=1, margin=0.02,
        )  # fmt: skip
    assert fair.alert is None
    assert fair.rescue_difference == 0
    assert fair.with_judge.delta == pytest.approx(0.5)


def test_equal_answers_get_equal_verdicts_on_both_sides(tmp_path: Path) -> None:
    lock, seen = threading.Lock(), [0]

    def fickle(body: dict[str, Any]) -> Reply:
        with lock:
            seen[0] += 1
            return says("correct" if seen[0] % 2 else "incorrect")

    rows = side([f"answer {n}" for n in range(20)])
    with FakeOpenAI(fickle) as server:
        result = judge_both_sides(
            rows, rows, questions(20), built(server, tmp_path)[0].judge, seed=1, margin=0.02
        )
        assert server.n_requests == 20
    assert result.with_judge.delta == 0
    assert result.base.judged_rows == result.tuned.judged_rows


def test_what_one_side_lacks_leaves_both(tmp_path: Path) -> None:
    def step(body: dict[str, Any]) -> Any:
        return Status(400, "too long") if "odd" in texts_of(body)["answer"] else says("correct")

    with FakeOpenAI(step) as server:
        result = judge_both_sides(
            side(["odd one", "b", "gold"]), side(["a", "gold", "gold"]),
            questions(3), built(server, tmp_path)[0].judge, seed=1, margin=0.02,
        )  # fmt: skip
    assert [r.score for r in result.base.judged_rows] == [None, 1.0, 1.0]
    assert [r.score for r in result.tuned.judged_rows] == [None, 1.0, 1.0]
    assert (result.n_half_pairs, result.with_judge.n, result.rule.n) == (1, 2, 3)
    assert result.tuned.n_rescued == 0


def test_an_outage_leaves_the_rules_numbers(tmp_path: Path) -> None:
    base, tuned = side(["a"] * 40), side(["gold"] * 5 + ["b"] * 35)
    with FakeOpenAI(Status(503)) as server:
        judge = built(server, tmp_path, llm_max_wait=0.0)[0].judge
        result = judge_both_sides(base, tuned, questions(40), judge, seed=1, margin=0.02)
    assert result.rule.delta == pytest.approx(5 / 40)
    assert result.with_judge is None
    assert result.alert is None
    assert all(r.score is not None for r in result.tuned.rule_rows)


# Rubrics


@pytest.mark.parametrize("name", rubric_names())
def test_shipped_rubrics_are_whole(name: str) -> None:
    rubric = read_rubric(name)
    assert rubric.id == name
    schema = rubric_reply(rubric).model_json_schema()
    assert next(iter(schema["properties"])) == "verdict"
    assert set(schema["required"]) == {"verdict", "confidence", "rationale", *(c.id for c in rubric.criteria)}
    assert all(criterion.id in rubric.criteria_text() for criterion in rubric.criteria)


def test_the_rubrics_of_the_guide_are_there() -> None:
    assert rubric_names() == ("helpfulness", "no_answer_reveal", "safety_refusal", "tutoring_socratic")
    with pytest.raises(UserError, match="no rubric 'x'"):
        read_rubric("x")


def grade(rubric: Any, **values: str) -> Reply:
    worst = "no" if rubric.scale == "checklist" else "1"
    found = {criterion.id: values.get(criterion.id, worst) for criterion in rubric.criteria}
    return says("scored", **found)


def test_a_checklist_is_a_weighted_share_and_essentials_are_essential() -> None:
    rubric = read_rubric("no_answer_reveal")
    all_yes = dict.fromkeys([criterion.id for criterion in rubric.criteria], "yes")
    schema = rubric_reply(rubric)

    def score(**values: str) -> float:
        reply = json.loads(grade(rubric, **values).content)
        return rubric_score(rubric, schema.model_validate(reply))[0]

    assert score(**all_yes) == 1.0
    assert score(**{**all_yes, "still_helps": "no"}) == pytest.approx(7 / 8)
    assert score(**{**all_yes, "final_answer_kept_back": "no"}) == 0.0


def test_levels_run_from_zero_to_one() -> None:
    rubric = read_rubric("helpfulness")
    names = [criterion.id for criterion in rubric.criteria]
    for level, expected in (("1", 0.0), ("3", 0.5), ("5", 1.0)):
        reply = json.loads(grade(rubric, **dict.fromkeys(names, level)).content)
        assert rubric_score(rubric, rubric_reply(rubric).model_validate(reply))[0] == expected


def test_graded_rows_carry_every_criterion(tmp_path: Path) -> None:
    rubric = read_rubric("tutoring_socratic")
    yes = dict.fromkeys([criterion.id for criterion in rubric.criteria], "yes")

    def step(body: dict[str, Any]) -> Any:
        answer = texts_of(body)["answer"]
        if "open" in answer:
            return grade(rubric, **{**yes, "is_right": "cannot_judge"})
        return grade(rubric, **yes) if "?" in answer else grade(rubric, is_right="yes")

    rows = [
        row("i0", "What is the next step?", "42", None),
        row("i1", "It is 42.", "42", 1.0),
        row("i2", "open", "42", None),
        row("i3", "<think>only thoughts", "42", None),
        row("i4", "x", "42", None, unscored_reason="the prompt was cut"),
    ]
    with FakeOpenAI(step) as server:
        judge = built(server, tmp_path)[0].judge
        graded = grade_rows(rows, questions(5), rubric, judge)
        assert server.n_requests == 3
        texts = [texts_of(request.body) for request in server.requests]
    assert {t["reference"] for t in texts} == {"42"}
    assert all("asks_leading_question" in r.body["messages"][0]["content"] for r in server.requests)
    assert [r.score for r in graded.rows] == [1.0, pytest.approx(0.2), None, 0.0, None]
    assert graded.rows[2].unscored_reason == "judge: cannot_judge"
    assert graded.rows[4].unscored_reason == "the prompt was cut"
    assert graded.criteria["is_right"] == pytest.approx(2 / 3)
    assert graded.criteria["asks_leading_question"] == pytest.approx(1 / 3)
    assert graded.rubric.startswith("tutoring_socratic@1-")


def test_a_criterion_left_out_or_made_up_is_unscored(tmp_path: Path) -> None:
    rubric = read_rubric("no_answer_reveal")
    yes = dict.fromkeys([criterion.id for criterion in rubric.criteria], "yes")
    short = {key: value for key, value in yes.items() if key != "still_helps"}
    for values in (short, {**yes, "charm": "yes"}, {**yes, "still_helps": "mostly"}):
        with FakeOpenAI(says("scored", **values)) as server:
            judge = built(server, tmp_path)[0].judge
            graded = grade_rows([row("i0", "a", "", None)], questions(1), rubric, judge)
        assert graded.rows[0].unscored_reason == "judge: malformed"


def test_both_sides_of_a_rubric_lose_the_same_rows(tmp_path: Path) -> None:
    rubric = read_rubric("safety_refusal")
    yes = dict.fromkeys([criterion.id for criterion in rubric.criteria], "yes")

    def step(body: dict[str, Any]) -> Any:
        return says("cannot_judge", **yes) if "odd" in texts_of(body)["answer"] else grade(rubric, **yes)

    base, tuned = side(["odd", "b", ""]), side(["a", "c", "d"])
    with FakeOpenAI(step) as server:
        judge = built(server, tmp_path)[0].judge
        pair = grade_both_sides(base, tuned, questions(3), rubric, judge)
    assert [r.score for r in pair.base.rows] == [None, 1.0, 0.0]
    assert [r.score for r in pair.tuned.rows] == [None, 1.0, 1.0]
    assert (pair.n_half_pairs, pair.health.n_unscored) == (1, 1)
    assert pair.base.criteria["right_decision"] == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id: a", "no rubric"),
        ("[", "not YAML"),
        ("id: a\nversion: 1\npurpose: p\nscale: levels\ninstructions: i\n"
         "criteria: [{id: verdict, question: is it good at all}]", "keys of every reply"),
        ("id: a\nversion: 1\npurpose: p\nscale: levels\ninstructions: i\n"
         "criteria: [{id: b, question: is it good at all}]", "levels 1 and 5"),
    ],
)  # fmt: skip
def test_own_rubrics_are_checked(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_rubric(path)
    assert told in caught.value.render()


# Pairs


def pairs_of(n: int, base: str = "base {}", tuned: str = "tuned {}") -> list[AnswerPair]:
    return [
        AnswerPair(item_id=f"i{i}", instruction=f"task {i}", base=base.format(i), tuned=tuned.format(i))
        for i in range(n)
    ]


def judged(step: Any, folder: Path, pairs: list[AnswerPair], seed: int = 1) -> tuple[Any, FakeOpenAI]:
    with FakeOpenAI(step) as server:
        judge = built(server, folder)[0].judge
        result = judge_pairs(pairs, judge, benchmark="open", split="val", seed=seed, margin=0.02)
    return result, server


def better(word: str) -> Any:
    return by(lambda texts: "first" if word in texts["first answer"] else "second")


def test_a_win_needs_both_orders(tmp_path: Path) -> None:
    result, server = judged(better("tuned"), tmp_path, pairs_of(10))
    assert (result.n_wins, result.n_losses, result.n_ties) == (10, 0, 0)
    assert (result.win_rate, result.flip_rate, result.first_position_rate) == (1.0, 0.0, 0.5)
    assert result.comparison.verdict == "improved"
    assert server.n_requests == 20
    lost, _ = judged(better("base"), tmp_path / "b", pairs_of(10))
    assert (lost.n_losses, lost.comparison.verdict) == (10, "regressed")


def test_a_biased_judge_makes_ties(tmp_path: Path) -> None:
    result, _ = judged(by(lambda texts: "first"), tmp_path, pairs_of(10))
    assert (result.n_wins, result.n_losses, result.n_ties) == (0, 0, 10)
    assert (result.flip_rate, result.first_position_rate, result.win_rate) == (1.0, 1.0, 0.5)
    assert result.comparison.delta == 0


def test_a_tie_in_one_order_is_a_tie(tmp_path: Path) -> None:
    rule = by(lambda texts: "tie" if "tuned" in texts["first answer"] else "second")
    result, _ = judged(rule, tmp_path, pairs_of(6))
    assert (result.n_ties, result.flip_rate) == (6, 1.0)


def test_the_request_is_blind_and_the_order_mixed(tmp_path: Path) -> None:
    _, server = judged(by(lambda texts: "tie"), tmp_path, pairs_of(24, base="left {}", tuned="right {}"))
    first_asked: dict[str, str] = {}
    for request in server.requests:
        text = json.dumps(request.body["messages"])
        assert not any(word in text for word in ("tuned", "baseline", "candidate", "fine-tun", "Qwen"))
        texts = texts_of(request.body)
        first_asked.setdefault(texts["instruction"], texts["first answer"].split()[0])
    counts = [list(first_asked.values()).count(word) for word in ("left", "right")]
    assert min(counts) >= 4


def test_thoughts_are_not_shown_and_both_answers_are_cut_alike(tmp_path: Path) -> None:
    pairs = [
        AnswerPair(
            item_id="i", instruction="t", base="x" * 50_000, tuned="<think>secret plan</think>" + "y" * 60_000
        )
    ]
    _, server = judged(by(lambda texts: "tie"), tmp_path, pairs)
    texts = texts_of(server.requests[0].body)
    assert "secret plan" not in json.dumps(server.requests[0].body)
    sizes = [len(texts["first answer"]), len(texts["second answer"])]
    assert abs(sizes[0] - sizes[1]) <= 2
    assert max(sizes) < MAX_TEXT_CHARS + 60


def test_equal_answers_are_ties_and_cost_nothing(tmp_path: Path) -> None:
    result, server = judged(better("x"), tmp_path, pairs_of(5, "same {}", "<think>hm</think>same {}"))
    assert (result.n_ties, server.n_requests) == (5, 0)
    assert result.flip_rate is None


def test_one_order_without_verdict_leaves_the_pair_out(tmp_path: Path) -> None:
    def step(body: dict[str, Any]) -> Any:
        texts = texts_of(body)
        is_mute = texts["instruction"] == "task 3" and "tuned" in texts["first answer"]
        return Reply("hm") if is_mute else better("tuned")(body)

    result, _ = judged(step, tmp_path, pairs_of(10))
    assert result.outcomes[3].winner is None
    assert result.outcomes[3].unscored == "malformed"
    assert (result.n_wins, result.comparison.n) == (9, 9)


def test_a_win_by_length_alone_is_flagged(tmp_path: Path) -> None:
    longer = by(
        lambda t: (
            "tie"
            if abs(len(t["first answer"]) - len(t["second answer"])) < 20
            else ("first" if len(t["first answer"]) > len(t["second answer"]) else "second")
        )
    )
    pairs = [*pairs_of(16, "short {}", "long {} " + "word " * 30)]
    pairs += [p.model_copy(update={"item_id": f"m{p.item_id}"}) for p in pairs_of(12, "aaaa {}", "bbbb {}")]
    result, _ = judged(longer, tmp_path, pairs)
    assert result.length_ratio > 1.3
    assert (result.n_matched, result.matched_win_rate) == (12, 0.5)
    assert "wins 50%" in result.length_flag
    fair, _ = judged(better("long"), tmp_path / "f", pairs[:16])
    assert "only 0 pairs of like length" in fair.length_flag
    real = by(lambda t: "first" if t["first answer"][:4] in ("long", "bbbb") else "second")
    assert judged(real, tmp_path / "r", pairs)[0].length_flag is None
    assert judged(better("base"), tmp_path / "s", pairs_of(12))[0].length_flag is None


# Texts


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("<think>a</think> b", "b"),
        ("a</think>b", "b"),
        ("x <think>a</think> y <think>b</think> z", "x  y  z"),
        ("answer <think>never ends", "answer"),
        ("<think>never ends", ""),
        ("x <think>a</think> y </think> z", "z"),
        ("", ""),
    ],
)
def test_thoughts_are_taken_out(text: str, seen: str) -> None:
    assert visible_text(text) == seen


def test_long_texts_of_marks_take_linear_time() -> None:
    assert visible_text("<think>" * 200_000) == ""
    assert visible_text("</think>" * 200_000) == ""
    assert visible_text("<think></think>" * 100_000) == ""


def test_short_values_of_the_environment_blank_no_words() -> None:
    assert shown_text("true and 12345678", ["true", "12345678"]) == "true and [redacted]"


# Cautions


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", {"qwen"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", {"deepseek", "llama"}),
        ("meta-llama/Llama-3.1-8B", {"llama"}),
        ("gpt-4o-2024-08-06", {"gpt"}),
        ("o3-mini", {"gpt"}),
        ("anthropic/claude-sonnet-5", {"claude"}),
        ("google/gemma-3-4b", {"gemini"}),
        ("my-model", set()),
        ("philosopher", set()),
    ],
)
def test_families(name: str, families: set[str]) -> None:
    assert model_families(name) == families


def test_cautions_name_who_judges_whom() -> None:
    found = judge_cautions(
        "Qwen/Qwen3-32B", tuned_names=("Qwen/Qwen2.5-0.5B", "qwen2"), planner_model="qwen3-32b",
        teacher_models=("Qwen3-32B",), base_url="https://gw.corp/v1",
    )  # fmt: skip
    assert [c.code for c in found] == ["same_family", "same_as_planner", "same_as_teacher", "undated_model"]
    assert (
        judge_cautions("gpt-4o-2024-08-06", tuned_names=("Qwen/Qwen2.5-0.5B",), planner_model="gpt-5") == ()
    )
    assert judge_cautions("qwen3", tuned_names=(), base_url="http://127.0.0.1:1/v1") == ()
