"""The whole way through lm-eval: a real job in a process of its own on a tiny random model."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import prompt_hash
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness, adapters_without_effect
from rdagent_ft.evaluation.port import EvalModel, EvalRequest, EvalTask
from rdagent_ft.evaluation.score import score_request

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("torch") is None,
        reason="needs the extras train and lm-eval",
    ),
]

PROMPTS = [
    "what is 1 plus 2? answer:",
    "1999-01-01",
    "{{ prompt }} {% raw %}",
    " leading and trailing space ",
    "[1, 2]",
    "what is " + "1 plus " * 60 + "2?",  # does not fit the context
    "line one\nline two\n",
]
CUT_PROMPT = 5


def write_items(path: Path, golds: dict[int, str] | None = None) -> None:
    """Write one item a prompt; `golds` replaces the reference of single items."""
    with path.open("w", encoding="utf-8") as stream:
        for number, prompt in enumerate(PROMPTS):
            gold = (golds or {}).get(number, "2001-12-31" if number == 1 else '[1, "a"]')
            line = {"item_id": f"id{number}", "prompt": prompt, "gold": gold, "cluster": None}
            stream.write(json.dumps(line) + "\n")


def run_script(code: str) -> str:
    """Run code with the tests' folder importable, in a process of its own: torch stays out of pytest."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}", "OMP_NUM_THREADS": "2"},
    )
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models, two adapters, and `expected.json`: the second model's own greedy answers."""
    folder = tmp_path_factory.mktemp("models")
    run_script(f"""
import json
from pathlib import Path
from tiny_model import build_adapter, build_model, greedy_answers
root = Path({str(folder)!r})
build_model(root / "base")
build_model(root / "bos", bos=True)
build_adapter(root / "base", root / "adapter", zero=False)
build_adapter(root / "base", root / "untrained", zero=True)
expected = {{
    "plain": greedy_answers(root / "bos", {PROMPTS!r}, 12, add_special_tokens=True),
    "chat": greedy_answers(root / "bos", {PROMPTS!r}, 12, add_special_tokens=False),
}}
(root / "expected.json").write_text(json.dumps(expected))
""")
    return folder


@pytest.fixture(scope="module")
def plain_answers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a job in the plain format left, as raw predictions in item order."""
    folder = tmp_path_factory.mktemp("plain")
    write_items(folder / "val.jsonl")
    run_job(bos_request(models, folder / "val.jsonl"), folder / "job")
    return raw_predictions(folder / "job")


def bos_request(models: Path, items: Path, *, chat: bool = False) -> EvalRequest:
    return EvalRequest(
        models=(EvalModel(role="base", path=models / "bos"),),
        tasks=(task_of(items),),
        prompt_format="chat" if chat else "plain",
        batch_size=4,
        device="cpu",
    )


def raw_predictions(out_dir: Path) -> list[str]:
    lines = (out_dir / "samples-base-heldout-val.jsonl").read_text().splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def without_cut_prompt(answers: list[str]) -> list[str]:
    """The job cuts the long prompt, the plain model does not: only the others must agree."""
    return [answer for number, answer in enumerate(answers) if number != CUT_PROMPT]


def run_job(request: EvalRequest, out_dir: Path) -> dict:
    out_dir.mkdir()
    argv = LmEvalHarness().prepare(request, out_dir)
    done = subprocess.run(
        [sys.executable, *argv[1:]],
        cwd=out_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((out_dir / "aggregate.json").read_text())


def task_of(items: Path, split: str = "val") -> EvalTask:
    return EvalTask(
        benchmark="heldout",
        split="val" if split == "val" else "dev",
        items_file=items,
        n_items=len(PROMPTS),
        scorer="exact_match",
        max_new_tokens=12,
    )


def test_base_and_adapters_in_one_job(models: Path, tmp_path: Path) -> None:
    write_items(tmp_path / "val.jsonl")
    request = EvalRequest(
        models=(
            EvalModel(role="base", path=models / "base"),
            EvalModel(role="tuned", path=models / "base", adapter=models / "adapter"),
            EvalModel(role="idle", path=models / "base", adapter=models / "untrained"),
        ),
        tasks=(task_of(tmp_path / "val.jsonl"), task_of(tmp_path / "val.jsonl", "dev")),
        prompt_format="plain",
        batch_size=3,
        device="cpu",
    )
    run_job(request, tmp_path / "job")

    samples = score_request(request, LmEvalHarness().parse(request, tmp_path / "job"))
    assert set(samples) == {(r, "heldout", s) for r in ("base", "tuned", "idle") for s in ("val", "dev")}
    base = samples["base", "heldout", "val"]
    assert [row.item_id for row in base] == [f"id{number}" for number in range(len(PROMPTS))]
    assert [row.prompt_hash for row in base] == [prompt_hash(prompt) for prompt in PROMPTS]
    assert base[1].gold == "2001-12-31"
    assert all(row.n_tokens == 12 for row in base if row.finish_reason == "length")
    assert all(row.finish_reason is not None for row in base)
    # The long prompt was cut: it does not count, on either side.
    assert base[CUT_PROMPT].score is None
    assert "context" in (base[CUT_PROMPT].unscored_reason or "")
    assert [row.score is None for row in base].count(True) == 1
    # Models differ where they should, and an untrained adapter is the base model.
    assert [row.prediction for row in samples["tuned", "heldout", "val"]] != [row.prediction for row in base]
    assert [row.prediction for row in samples["idle", "heldout", "val"]] == [row.prediction for row in base]
    assert adapters_without_effect(tmp_path / "job") == ("idle",)
    lines = [json.loads(line) for line in (tmp_path / "job" / "progress.jsonl").read_text().splitlines()]
    assert lines[-1]["done"] == lines[-1]["total"] == 6 * len(PROMPTS)
    assert lines[-1]["role"] == "idle"
    assert not (tmp_path / "job" / "samples-base-heldout-val.part").exists()


def test_plain_answers_are_the_models_own(models: Path, plain_answers: list[str]) -> None:
    """One prompt at a time and in batches, with the BOS that training puts before plain text."""
    expected = json.loads((models / "expected.json").read_text())
    assert without_cut_prompt(plain_answers) == without_cut_prompt(expected["plain"])
    assert expected["plain"] != expected["chat"]


def test_chat_prompts_get_no_second_bos(models: Path, tmp_path: Path) -> None:
    write_items(tmp_path / "val.jsonl")
    run_job(bos_request(models, tmp_path / "val.jsonl", chat=True), tmp_path / "job")
    expected = json.loads((models / "expected.json").read_text())
    assert without_cut_prompt(raw_predictions(tmp_path / "job")) == without_cut_prompt(expected["chat"])


def test_lm_eval_counts_what_we_count(models: Path, plain_answers: list[str], tmp_path: Path) -> None:
    """Golds set to the model's own answers: both count them, and altered answers are refused."""
    golds = {0: plain_answers[0] + "\n", 3: plain_answers[3], 4: plain_answers[4]}
    write_items(tmp_path / "val.jsonl", golds)
    request = bos_request(models, tmp_path / "val.jsonl")
    aggregate = run_job(request, tmp_path / "job")
    assert aggregate["tasks"][0]["exact_match"] == pytest.approx(3 / len(PROMPTS))
    rows = score_request(request, LmEvalHarness().parse(request, tmp_path / "job"))["base", "heldout", "val"]
    assert [row.score for row in rows].count(1.0) == 3

    path = tmp_path / "job" / "samples-base-heldout-val.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["prediction"] = "2001-12-31"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(JobError, match="not the same answers"):
        LmEvalHarness().parse(request, tmp_path / "job")


def test_choices_repeats_and_penalties(models: Path, tmp_path: Path) -> None:
    """The likeliest choice, sampled repeats that differ, a penalty that changes answers."""
    write_items(tmp_path / "val.jsonl")
    items = [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()][:3]
    choices = [" alpha", " beta gamma", " z"]
    lines = [{**item, "gold": choices[0], "choices": choices} for item in items]
    (tmp_path / "choose.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    greedy = task_of(tmp_path / "val.jsonl")
    changed = {"split": "dev", "repetition_penalty": 1.8}
    sampled = {"split": "test", "repeats": 3, "temperature": 5.0}
    request = EvalRequest(
        models=(EvalModel(role="base", path=models / "base"),),
        tasks=(
            greedy,
            greedy.model_copy(update=changed),
            greedy.model_copy(update=sampled),
            greedy.model_copy(
                update={
                    "benchmark": "picked",
                    "method": "choose",
                    "items_file": tmp_path / "choose.jsonl",
                    "n_items": 3,
                }
            ),
        ),
        prompt_format="plain",
        batch_size=2,
        device="cpu",
    )
    run_job(request, tmp_path / "job")
    answers = LmEvalHarness().parse(request, tmp_path / "job")
    plain, penalised = answers["base", "heldout", "val"], answers["base", "heldout", "dev"]
    assert [a.prediction for a in plain] != [a.prediction for a in penalised]
    repeats = answers["base", "heldout", "test"]
    assert [a.repeat for a in repeats[:3]] == [0, 1, 2]
    assert len({a.prediction for a in repeats[:3]}) > 1
    likelihoods = json.loads(
        run_script(
            f"""
import json
from pathlib import Path
from tiny_model import choice_likelihoods
prompts = {[item["prompt"] for item in items]!r}
print(json.dumps(choice_likelihoods(Path({str(models / "base")!r}), prompts, {choices!r})))
"""
        )
    )
    for found, row in zip(answers["base", "picked", "val"], likelihoods, strict=True):
        assert found.prediction == choices[row.index(max(row))]
