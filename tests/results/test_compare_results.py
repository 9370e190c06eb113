"""What a comparison says and decides, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from result_case import binary, harness_row, rows_of, write_folder, write_harness

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.results.compare import compare_results
from rdagent_ft.evaluation.results.comparison import ComparisonDocument, arrow_of, size_of
from rdagent_ft.evaluation.results.document import GenerationUse
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.table import sentence_lines, table_lines
from rdagent_ft.evaluation.statistics import compare


def compared(
    tmp_path: Path,
    base: dict[str, list[Any]],
    tuned: dict[str, list[Any]],
    *,
    suite: str | None = "core",
    target: str | None = "gsm8k",
    margin: float | None = None,
    **changes: Any,
) -> ComparisonDocument:
    """Compare two written folders; `changes` are for the candidate's."""
    marked = target if target in base else None
    a = write_folder(tmp_path / "a", base, suite=suite, target=marked)
    b = write_folder(tmp_path / "b", tuned, role="candidate", suite=suite, target=marked, **changes)
    return compare_results(read_result(a), read_result(b), margin=margin)


def test_the_numbers_are_those_of_the_statistics(tmp_path: Path) -> None:
    before, after = rows_of(binary(200, 100)), rows_of(binary(200, 130, flipped=5))
    document = compared(tmp_path, {"gsm8k": before}, {"gsm8k": after})
    pair, expected = document.pairs["gsm8k"], compare(before, after, margin=0.03)
    assert (pair.delta, pair.se, pair.ci95, pair.mde) == (
        expected.delta, expected.se, expected.ci95, expected.mde,
    )  # fmt: skip
    assert pair.mcnemar is not None
    assert (pair.mcnemar.b, pair.mcnemar.c) == expected.discordant == (35, 5)
    assert pair.p_holm == expected.p_value
    assert pair.relative == pytest.approx(0.3)
    assert (pair.verdict, pair.arrow, document.decision) == ("improved", "↑", "accept")
    assert ComparisonDocument.model_validate_json(document.model_dump_json()) == document


def test_guards_must_be_shown_safe(tmp_path: Path) -> None:
    better = {"gsm8k": rows_of(binary(500, 300))}
    base = {"gsm8k": rows_of(binary(500, 200))}

    def decision(n: int, lost: int, margin: float | None = None) -> ComparisonDocument:
        guard = rows_of(binary(n, n // 2), "mmlu")
        after = rows_of(binary(n, n // 2 - lost), "mmlu")
        return compared(tmp_path, base | {"mmlu": guard}, better | {"mmlu": after}, margin=margin)

    safe = decision(1000, 0)
    assert (safe.decision, safe.guards_failed) == ("accept", ())
    wide = decision(40, 0)
    assert wide.decision == "inconclusive"
    assert "mmlu: not shown to be safe" in " ".join(wide.reasons)
    lost = decision(1000, 60)
    assert (lost.decision, lost.guards_failed) == ("reject", ("mmlu",))
    assert lost.pairs["mmlu"].possible_forgetting
    tolerated = decision(1000, 60, margin=0.10)
    assert tolerated.decision == "accept"
    assert list(lost.pairs) == ["gsm8k", "mmlu"], "the target stands first"


def test_holm_corrects_over_all(tmp_path: Path) -> None:
    names = [f"b{number}" for number in range(10)]
    base = {name: rows_of(binary(200, 100), name) for name in names}
    tuned = {name: rows_of(binary(200, 100 + (12 if name == "b0" else 0)), name) for name in names}
    document = compared(tmp_path, base, tuned, target="b0")
    pair = document.pairs["b0"]
    assert pair.p_value is not None
    assert pair.p_holm == pytest.approx(10 * pair.p_value)


@pytest.mark.parametrize(
    ("suite", "gain", "decision"),
    [("quick", 9, "promote"), ("core", 9, "inconclusive"), ("quick", 0, "inconclusive")],
)
def test_quick_promotes_what_is_probable(tmp_path: Path, suite: str, gain: int, decision: str) -> None:
    after = binary(200, 100 + gain)
    after[0] = after[1] = after[2] = 0.0
    document = compared(
        tmp_path, {"gsm8k": rows_of(binary(200, 100))}, {"gsm8k": rows_of(after)}, suite=suite
    )
    assert document.pairs["gsm8k"].verdict != "improved"
    assert document.decision == decision


def test_the_test_suite_and_small_targets_decide_nothing(tmp_path: Path) -> None:
    base, tuned = {"gsm8k": rows_of(binary(300, 0))}, {"gsm8k": rows_of(binary(300, 300))}
    assert compared(tmp_path, base, tuned).decision == "accept"
    assert compared(tmp_path, base, tuned, suite="test").decision == "inconclusive"
    tried = compared(tmp_path, base, tuned, limit=300)
    assert (tried.decision, "--limit" in tried.reasons[0]) == ("inconclusive", True)
    aime = compared(
        tmp_path, {"aime25": rows_of(binary(30, 0), "aime25")}, {"aime25": rows_of(binary(30, 20), "aime25")},
        target="aime25",
    )  # fmt: skip
    assert (aime.pairs["aime25"].verdict, aime.decision) == ("improved", "inconclusive")
    assert "30 items answered 1 time each" in aime.reasons[0]
    many = [
        {"aime25": [row for repeat in range(16) for row in rows_of(binary(30, n), "aime25", repeat=repeat)]}
        for n in (0, 20)
    ]
    assert compared(tmp_path, *many, target="aime25").decision == "accept"


def test_a_partial_result_is_shown_and_never_decides(tmp_path: Path) -> None:
    base, tuned = {"gsm8k": rows_of(binary(200, 100))}, {"gsm8k": rows_of(binary(200, 200)[:150])}
    document = compared(tmp_path, base, tuned, n_expected={"gsm8k": 200})
    pair = document.pairs["gsm8k"]
    assert (pair.n_pairs, pair.partial, pair.p_holm) == (150, "candidate: 150 of 200 items", None)
    assert document.decision == "inconclusive"
    assert any("candidate is partial" in reason for reason in document.reasons)
    lines = table_lines(document, dim=True)
    assert lines[1].startswith("\x1b[2mgsm8k!")
    stopped = compared(tmp_path, base, {"gsm8k": rows_of(binary(200, 200))}, status="timeout")
    assert stopped.decision == "inconclusive"


def test_other_items_are_refused_by_name(tmp_path: Path) -> None:
    base = {"gsm8k": rows_of(binary(20, 10)), "mmlu": rows_of(binary(5, 5), "mmlu")}
    other = [row.model_copy(update={"item_id": f"x{at}"}) if at > 16 else row
             for at, row in enumerate(rows_of(binary(20, 12)))]  # fmt: skip
    with pytest.raises(UserError) as caught:
        compared(tmp_path, base, {"gsm8k": other, "mmlu": rows_of(binary(4, 4), "mmlu")})
    text = caught.value.render()
    assert "3 only in base (i17, i18, i19), 3 only in the candidate (x17, x18, x19)" in text
    assert "`mmlu`: not the same items: 1 only in base (i4)" in text
    partial_with_strangers = {"gsm8k": other[10:]}
    with pytest.raises(UserError, match="cannot be compared"):
        compared(tmp_path, {"gsm8k": base["gsm8k"]}, partial_with_strangers, n_expected={"gsm8k": 20})


def test_other_prompts_or_settings_decide_nothing(tmp_path: Path) -> None:
    base = {"gsm8k": rows_of(binary(200, 100))}
    changed = rows_of(binary(200, 200))
    changed[3] = changed[3].model_copy(update={"prompt_hash": "other"})
    document = compared(tmp_path, base, {"gsm8k": changed})
    assert document.pairs["gsm8k"].n_prompts_differ == 1
    assert document.decision == "inconclusive"
    assert "1 of 200 prompts differ" in document.reasons[0]
    assert "asked differently" in table_lines(document)[1]
    hot = GenerationUse(protocol="chat", max_tokens=512, temperature=0.7)
    other = compared(tmp_path, base, {"gsm8k": rows_of(binary(200, 200))}, generation=hot)
    assert other.decision == "inconclusive"
    assert "generation settings" in other.reasons[0]


def test_what_one_side_lacks_is_shown(tmp_path: Path) -> None:
    base = {"gsm8k": rows_of(binary(200, 100)), "mmlu": rows_of(binary(200, 100), "mmlu")}
    document = compared(tmp_path, base, {"gsm8k": rows_of(binary(200, 200))})
    pair = document.pairs["mmlu"]
    assert (pair.arrow, pair.base, pair.cand, pair.delta) == ("–", 0.5, None, None)
    assert document.decision == "inconclusive"
    assert "not scored for the candidate" in table_lines(document)[2]
    with pytest.raises(UserError, match="share no benchmark"):
        compared(tmp_path, {"gsm8k": rows_of([1.0, 0.0])}, {"mmlu": rows_of([1.0, 0.0], "mmlu")}, target=None)


def test_unscored_items_leave_both_sides(tmp_path: Path) -> None:
    before, after = binary(200, 100), binary(200, 120)
    before[0], after[1] = None, None
    document = compared(tmp_path, {"gsm8k": rows_of(before)}, {"gsm8k": rows_of(after)})
    assert document.pairs["gsm8k"].n_pairs == 198
    assert document.pairs["gsm8k"].partial is None


def test_lower_is_better_turns_the_arrow_not_the_sign(tmp_path: Path) -> None:
    def harness(name: str, n: int) -> Path:
        rows = [harness_row(at, {"error": float(at < n)}) for at in range(200)]
        folder = write_harness(tmp_path / name, {"t": rows})
        path = next(folder.rglob("results_*.json"))
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document | {"higher_is_better": {"t": {"error": False}}}))
        return folder

    document = compare_results(read_result(harness("a", 100)), read_result(harness("b", 60)))
    pair = document.pairs["t"]
    assert pair.delta == pytest.approx(-0.2)
    assert pair.ci95 is not None
    assert pair.ci95[0] < -0.2 < pair.ci95[1] < 0
    assert (pair.verdict, pair.arrow, pair.possible_forgetting) == ("improved", "↑", False)
    assert (pair.base, pair.cand) == (pytest.approx(0.5), pytest.approx(0.3))


def test_further_measures_are_paired_too(tmp_path: Path) -> None:
    def harness(name: str, n: int) -> Path:
        rows = [
            harness_row(
                at,
                {
                    "prompt_level_strict_acc": at < n,
                    "inst_level_strict_acc": [True, at < n, at < n][: 1 + at % 3],
                },
            )
            for at in range(120)
        ]
        return write_harness(tmp_path / name, {"ifeval": rows})

    document = compare_results(read_result(harness("a", 40)), read_result(harness("b", 80)))
    found = document.pairs["ifeval"].measures["inst_level_strict_acc"]
    assert found.delta > 0
    assert found.ci95[0] < found.delta < found.ci95[1]
    assert document.pairs["ifeval"].size == "excellent"


def test_harness_settings_that_differ_decide_nothing(tmp_path: Path) -> None:
    rows = [harness_row(at, {"acc": float(at < 50)}) for at in range(100)]
    a = write_harness(tmp_path / "a", {"t": rows}, configs={"t": {"num_fewshot": 0}})
    b = write_harness(tmp_path / "b", {"t": rows}, configs={"t": {"num_fewshot": 5}})
    assert compare_results(read_result(a), read_result(b)).pairs["t"].protocols_differ
    other = [row | {"doc_hash": f"x{at}"} for at, row in enumerate(rows)]
    third = read_result(write_harness(tmp_path / "c", {"t": other}))
    with pytest.raises(UserError) as caught:
        compare_results(read_result(a), third)
    assert "not the same items: 100 only in base" in caught.value.render()


def test_margins_and_targets_are_checked(tmp_path: Path) -> None:
    a = read_result(write_folder(tmp_path / "a", {"gsm8k": rows_of(binary(20, 10))}, suite="full"))
    assert compare_results(a, a).margin == 0.02
    for bad in (0.0, -1.0, 1.0, float("nan")):
        with pytest.raises(UserError, match="margin"):
            compare_results(a, a, margin=bad)
    with pytest.raises(UserError, match="'mmlu' is not scored") as caught:
        compare_results(a, a, target="mmlu")
    assert caught.value.hint == "both have: gsm8k"


def test_signs_and_sizes() -> None:
    assert [arrow_of(v, d, 0.01) for v, d in (("improved", 0.1), ("regressed", -0.1), ("equivalent", 0.02),
            ("inconclusive", 0.02), ("inconclusive", -0.02), ("inconclusive", 0.004), (None, 0.0))] == [
        "↑", "↓", "→", "↗", "↘", "→", "–"]  # fmt: skip
    assert size_of((0.12, 0.2)) == "excellent"
    assert size_of((0.05, 0.2)) == "at least good"
    assert size_of((0.03, 0.2)) == "at least marginal"
    assert size_of((0.01, 0.2)) is None
    assert size_of((-0.01, 0.019)) == "weak"


def test_the_table_reads_like_the_guide(tmp_path: Path) -> None:
    base = {"ifeval": rows_of(binary(500, 200), "ifeval"), "gsm8k": rows_of(binary(400, 200))}
    tuned = {
        "ifeval": rows_of(binary(500, 300), "ifeval"),
        "gsm8k": rows_of(binary(400, 160), finish_reason="length", n_tokens=50),
    }
    document = compared(tmp_path, base, tuned, target="ifeval")
    head, ifeval, gsm8k = table_lines(document)
    assert head.split()[:5] == ["benchmark", "metric", "n", "base", "tuned"]
    for text in ("ifeval (target)", "40.0", "60.0", "+20.0 [", "↑*", "(+50.0%)", "improved (excellent)"):
        assert text in ifeval
    assert "↓*" not in gsm8k, "a result with all answers cut is invalid and is not corrected"
    assert "gsm8k!" in gsm8k
    text = "\n".join(sentence_lines(document))
    assert "could only have seen changes above (points): ifeval" in text
    assert "gsm8k: cut by the limit 0% -> 100%, mean length 5 -> 50 tokens" in text
    plain = "\n".join([*table_lines(document, ascii_only=True), *sentence_lines(document, ascii_only=True)])
    assert plain.isascii()
    assert "^*" in plain
    lost = compared(tmp_path, base, tuned | {"gsm8k": rows_of(binary(400, 160))}, target="ifeval")
    assert "regressed (possible forgetting)" in table_lines(lost)[2]
    assert "↓*" in table_lines(lost)[2]


def test_hostile_names_cannot_move_the_cursor(tmp_path: Path) -> None:
    rows = [harness_row(at, {"acc": 1.0}) for at in range(4)]
    folder = write_harness(tmp_path, {"t\x1b[2J": rows}, model_name="m\x1b]0;x\x07")
    result = read_result(folder)
    document = compare_results(result, result)
    text = "\n".join([*table_lines(document), *sentence_lines(document), document.base_run])
    assert "\x1b" not in text
