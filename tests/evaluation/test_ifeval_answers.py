"""IFEval: published golden numbers, stable verdicts, agreement with lm-eval's own aggregate."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from evaluation_rows import rows_of

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items
from rdagent_ft.evaluation.ifeval_answers import (
    METRICS,
    find_nltk_data,
    ifeval_differences,
    ifeval_metrics,
    ifeval_problems,
    read_gold,
    score_ifeval,
)
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.scorers import Scored

GOLDEN = {"prompt_strict": 0.7708, "inst_strict": 0.8357, "prompt_loose": 0.7948, "inst_loose": 0.8537}
RANDOM_KEYS = {1122, 1129}


def parts_rows(bits: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[SampleRow]:
    return [
        rows_of(
            [float(all(strict))],
            parts={"inst_strict": strict, "prompt_loose": (all(loose),), "inst_loose": loose},
        )[0].model_copy(update={"item_id": f"i{number}"})
        for number, (strict, loose) in enumerate(bits)
    ]


def test_four_metrics_are_sums_over_their_own_numbers() -> None:
    rows = parts_rows([((1, 0, 1), (1, 1, 1)), ((0,), (0,)), ((1, 1), (1, 1))])
    found = {name: ratio.value for name, ratio in ifeval_metrics(rows).items()}
    assert found == pytest.approx(
        {"prompt_strict": 1 / 3, "inst_strict": 4 / 6, "prompt_loose": 2 / 3, "inst_loose": 5 / 6}
    )
    worse = parts_rows([((0, 0, 1), (1, 1, 1)), ((0,), (0,)), ((1, 1), (1, 1))])
    changes = ifeval_differences(worse, rows)
    assert changes["inst_strict"].value == pytest.approx(1 / 6)
    assert changes["inst_loose"].value == 0.0


def test_unscored_rows_count_nowhere() -> None:
    rows = parts_rows([((1, 0), (1, 1)), ((1,), (1,)), ((0,), (0,))])
    rows[2] = rows[2].model_copy(update={"score": None})
    assert ifeval_metrics(rows)["inst_strict"].value == pytest.approx(2 / 3)
    assert ifeval_differences(rows, rows)["inst_strict"].n_clusters == 2


def test_missing_tables_are_a_problem_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NLTK_DATA", raising=False)
    assert find_nltk_data(tmp_path) is None
    assert "punkt_tab" in ifeval_problems(None)[-1].rule
    with pytest.raises(PreflightError, match="cannot be scored") as caught:
        score_ifeval([("x", "{}")], nltk_data=tmp_path)
    assert "benchmarks/nltk_data" in caught.value.render()
    folder = tmp_path / "benchmarks" / "nltk_data"
    (folder / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
    assert find_nltk_data(tmp_path) == folder
    monkeypatch.setenv("NLTK_DATA", f"/nowhere:{folder}")
    assert find_nltk_data(Path("/none")) == folder


class Golden:
    """Published answers, scored once for all tests here."""

    def __init__(self, shared_data: Path, tmp_path: Path) -> None:
        pytest.importorskip("lm_eval.tasks", reason="needs the lm-eval extra")
        (tmp_path / "benchmarks").symlink_to(shared_data)
        self.nltk_data = shared_data / "nltk_punkt_tab"
        found = find_benchmark("ifeval", tmp_path)
        assert found is not None
        self.golds = [row.completion for row in load_items(found)]
        lines = (shared_data / "ifeval" / "gpt4_responses.jsonl").read_text().splitlines()
        answers = {record["prompt"]: record["response"] for record in map(json.loads, lines)}
        # The published numbers join by prompt; one prompt differs between the files (key 2785) and so
        # has no answer.
        prompts = [json.loads(gold)["prompt"] for gold in self.golds]
        self.pairs = [(answers.get(p, ""), gold) for p, gold in zip(prompts, self.golds, strict=True)]
        self.n_without = sum(prompt not in answers for prompt in prompts)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Golden:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    import os

    folder = Path(os.environ.get("FT_TEST_DATA", folder))
    if not folder.is_dir():
        pytest.skip("real data is not on this machine: set FT_TEST_DATA to its folder")
    return Golden(folder, tmp_path_factory.mktemp("ifeval"))


@pytest.fixture(scope="module")
def scored(golden: Golden) -> list[Scored]:
    return score_ifeval(golden.pairs, nltk_data=golden.nltk_data)


def as_rows(scored: list[Scored]) -> list[SampleRow]:
    rows = rows_of([one.score for one in scored])
    return [row.model_copy(update={"parts": one.parts}) for row, one in zip(rows, scored, strict=True)]


@pytest.mark.real_data
def test_published_gpt4_answers_give_the_published_numbers(golden: Golden, scored: list[Scored]) -> None:
    assert (len(scored), golden.n_without) == (541, 1)
    found = ifeval_metrics(as_rows(scored))
    assert {name: round(found[name].value, 4) for name in METRICS} == GOLDEN
    assert sum(len(one.parts["inst_strict"]) for one in scored) == 834


@pytest.mark.real_data
def test_lm_evals_own_aggregate_is_ours(
    golden: Golden, scored: list[Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk
    from lm_eval.tasks.ifeval import utils

    monkeypatch.setattr(nltk.data, "path", [str(golden.nltk_data)])
    import langdetect

    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 0)
    state = random.getstate()
    try:
        random.seed(0)
        theirs = [utils.process_results(json.loads(gold), [prediction]) for prediction, gold in golden.pairs]
    finally:
        random.setstate(state)
    ours = {name: ratio.value for name, ratio in ifeval_metrics(as_rows(scored)).items()}
    for level in ("strict", "loose"):
        prompts = sum(one[f"prompt_level_{level}_acc"] for one in theirs) / len(theirs)
        instructions = utils.agg_inst_level_acc([one[f"inst_level_{level}_acc"] for one in theirs])
        assert ours[f"prompt_{level}"] == pytest.approx(prompts, abs=1e-6)
        assert ours[f"inst_{level}"] == pytest.approx(instructions, abs=1e-6)


@pytest.mark.real_data
def test_items_that_draw_a_letter_have_the_same_verdict_in_20_repeats(golden: Golden) -> None:
    drawn = [pair for pair in golden.pairs if json.loads(pair[1])["key"] in RANDOM_KEYS]
    assert len(drawn) == 2
    # Between other items and in another order, so that only the item itself can decide.
    noise = golden.pairs[:3]
    found = score_ifeval((drawn + noise + drawn[::-1]) * 10, nltk_data=golden.nltk_data)
    by_pair: dict[str, set[str]] = {}
    for pair, one in zip((drawn + noise + drawn[::-1]) * 10, found, strict=True):
        by_pair.setdefault(pair[1], set()).add(one.model_dump_json())
    assert all(len(verdicts) == 1 for verdicts in by_pair.values())


@pytest.mark.real_data
def test_bad_answers_follow_nothing_and_bad_references_score_nobody(golden: Golden) -> None:
    gold = golden.golds[0]
    n = len(read_gold(gold).instruction_id_list)  # type: ignore[union-attr]
    empty, long, broken, unequal = score_ifeval(
        [
            ("", gold),
            ("x " * 150_000, gold),
            ("x", "{}"),
            ("x", json.dumps({**json.loads(gold), "kwargs": []})),
        ],
        nltk_data=golden.nltk_data,
    )
    assert (empty.score, empty.parts["inst_strict"]) == (0.0, (0.0,) * n)
    assert (long.score, long.parts["inst_loose"]) == (0.0, (0.0,) * n)
    assert broken.score is None
    assert unequal.score is None
    assert "instructions" in (unequal.unscored_reason or "")
