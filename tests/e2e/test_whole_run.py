"""One whole run, looked at from all sides: document, files, hand-over, status, reproduce."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import REPOSITORY, Finished, World

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_openai import FakeOpenAI, Reply

from rdagent_ft.values import content_hash

pytestmark = [pytest.mark.train]
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(scope="module")
def finished(world: World) -> Finished:
    items = world.files("whole") / "benchmarks" / "gsm8k" / "test.jsonl"
    items.parent.mkdir(parents=True)
    rows = [
        {"question": f"What is {n} plus {n + 1}?", "answer": f"Add.\n#### {2 * n + 1}"} for n in range(24)
    ]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = {
        "OPENAI_API_KEY": KEY,
        "FT_LLM_API_KEY": KEY,
        "FT_BENCHMARK_LIMIT": "20",
        "FT_CLAIM_SEEDS": "2",
        "FT_TUNE_DECODING": "1",
    }
    with FakeOpenAI(strict_judge) as judge:
        extra |= {"FT_JUDGE_MODEL": "strict-2026-01-01", "FT_JUDGE_API_BASE": judge.base_url}
        return world.run("whole", *world.new("--loop_n", "2", "--benchmark", "gsm8k"), **extra)


def strict_judge(body: dict[str, Any]) -> Reply:
    """Accepts no answer, and prefers the first of two: no judge that could pass a gate."""
    verdict = "first" if "<<first answer " in body["messages"][1]["content"] else "incorrect"
    return Reply(json.dumps({"verdict": verdict, "confidence": 0.9, "rationale": "no"}))


def test_the_document_is_the_only_thing_on_stdout(finished: Finished) -> None:
    assert finished.code == 0, finished.err
    document = finished.document
    assert document["schema_version"] == 1
    assert (document["status"], document["stop_reason"]) == ("finished", "loop_n")
    assert [loop["loop"] for loop in document["loops"]] == [0, 1]
    for loop in document["loops"]:
        assert loop["status"] in {"accepted", "rejected", "failed"}
        assert loop["val"]["n"] == 40
    claim = document["claim"]
    assert (claim["split"], claim["n"], claim["benchmark"]) == ("test", 40, "heldout")
    assert claim["ci95"][0] <= claim["delta"] <= claim["ci95"][1]
    assert claim["delta"] == pytest.approx(claim["tuned"] - claim["base"])
    assert document["cost"]["train_s"] > 0


def test_the_first_line_says_that_no_llm_is_configured(finished: Finished) -> None:
    assert "no LLM configured" in finished.err.splitlines()[0]


def test_the_run_directory_holds_what_the_design_promises(finished: Finished, world: World) -> None:
    run_dir = Path(finished.document["run_dir"])
    for name in ("run.db", "results.tsv", "report.html", "report.md", "benchmark.json", "comparison.json"):
        assert (run_dir / name).is_file(), name
    for loop in ("000", "001"):
        folder = run_dir / "loops" / loop
        for name in ("recipe.json", "hypothesis.md", "feedback.md", "data/train.jsonl", "files/1-sft.yaml"):
            assert (folder / name).is_file(), name
        assert (folder / "eval" / "heldout-val" / "samples.jsonl").is_file()
        assert (folder / "stages" / "1-sft" / "attempt-1" / "metrics.jsonl").is_file()
    lines = (run_dir / "results.tsv").read_text().splitlines()
    assert len(lines) == 3


def test_the_splits_are_disjoint(finished: Finished) -> None:
    folder = Path(finished.document["run_dir"]) / "data"
    ids = {
        name: {json.loads(line)["item_id"] for line in (folder / f"{name}.jsonl").read_text().splitlines()}
        for name in ("train", "dev", "val", "test")
    }
    names = sorted(ids)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert not ids[first] & ids[second]


def test_only_the_claim_looked_at_test(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    judged = sorted(p.relative_to(run_dir).parts[1] for p in run_dir.glob("loops/*/eval/heldout-test"))
    assert judged == [f"{finished.document['claim']['loop']:03d}"]
    assert finished.document["claim"]["opening"] == 1


def test_the_claim_rests_on_two_trainings(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    claim = json.loads(journal_output(run_dir, "claim"))
    (further,) = claim["seeds"]
    assert further["failure"] is None
    assert further["weights_sha256"]
    config = run_dir / "loops" / f"{claim['loop']:03d}" / "seeds" / str(further["seed"]) / "1-sft.yaml"
    assert f"seed: {further['seed']}" in config.read_text()
    mean = (further["delta"] + claim["own"]["delta"]) / 2
    assert claim["comparison"]["delta"] == pytest.approx(mean)
    low, high = claim["comparison"]["ci95"]
    own_low, own_high = claim["own"]["ci95"]
    assert high - low > 0 or own_high == own_low
    assert "trained 2 times" in (run_dir / "report.md").read_text()


def test_decoding_was_chosen_for_both_sides_before_the_test_was_opened(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    claim = json.loads(journal_output(run_dir, "claim"))
    assert set(claim["decoding"]) == {"base", "tuned"}
    assert (claim["plain"] is None) == (set(claim["decoding"].values()) == {1.0})
    folders = {
        path.parent.parent.name for path in run_dir.glob("loops/*/decoding/*/heldout-val/samples.jsonl")
    }
    assert folders == {f"{role}-{penalty}" for role in ("base", "tuned") for penalty in (1.0, 1.1, 1.3)}
    with sqlite3.connect(f"file:{run_dir}/run.db?mode=ro", uri=True) as connection:
        purposes = [row[0] for row in connection.execute("SELECT purpose FROM looks ORDER BY rowid")]
    assert purposes[-3:] == ["decode", "claim", "claim"], "the test and the reported benchmark"


def test_a_judge_that_fails_its_gate_is_shown_and_decides_nothing(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    (name, judged), *others = json.loads(journal_output(run_dir, "claim"))["judged"].items()
    assert (name, others) == ("gsm8k", []), "labels of the target are exact: a judge adds nothing there"
    assert (judged["status"], judged["decides"]) == ("failed_gate", False)
    assert judged["n_asked"] > 0
    assert judged["n_unscored"] == 0
    assert judged["with_judge"]["delta"] == judged["rule"]["delta"], "it rescued nothing"
    assert "These numbers decide nothing (failed_gate)" in (run_dir / "report.md").read_text()


def test_the_base_against_itself_shows_nothing(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    again = json.loads(journal_output(run_dir, "baseline"))["again"]
    assert again["verdict"] in {"equivalent", "inconclusive"}
    assert again["n"] == 40
    assert (run_dir / "baseline" / "again" / "heldout-val" / "samples.jsonl").is_file()


def test_a_claim_can_be_traced_to_single_answers(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    claim = json.loads(journal_output(run_dir, "claim"))
    report = (run_dir / "report.html").read_text()
    scores: dict[str, dict[str, float]] = {}
    for folder in ("baseline/eval", f"loops/{claim['loop']:03d}/eval"):
        file = f"{folder}/heldout-test/samples.jsonl"
        assert f'href="{file}"' in report
        rows = [json.loads(line) for line in (run_dir / file).read_text().splitlines()]
        scores[folder] = {row["item_id"]: row["score"] for row in rows}
    base, tuned = scores.values()
    differences = [tuned[item_id] - base[item_id] for item_id in base]
    assert sum(differences) / len(differences) == pytest.approx(claim["own"]["delta"])


def journal_output(run_dir: Path, step: str) -> str:
    with sqlite3.connect(f"file:{run_dir}/run.db?mode=ro", uri=True) as connection:
        return connection.execute("SELECT output FROM steps WHERE step = ?", (step,)).fetchone()[0]


def test_the_reported_benchmark_stands_beside_the_target(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    benchmarks = json.loads((run_dir / "benchmark.json").read_text())["models"]
    assert benchmarks, "base and tuned are both in the file"
    assert "gsm8k" in (run_dir / "report.md").read_text()
    rows = (run_dir / "baseline" / "eval" / "gsm8k-test" / "samples.jsonl").read_text().splitlines()
    assert len(rows) == 20, "FT_BENCHMARK_LIMIT bounds the reported benchmark"


def test_the_leader_is_handed_over(finished: Finished) -> None:
    document = finished.document
    run_dir = Path(document["run_dir"])
    if document["best"]["loop"] is None:
        assert not (run_dir / "export").exists()
        return
    assert (run_dir / "best").resolve().name == f"{document['best']['loop']:03d}"
    for name in ("merged/config.json", "merged/model.safetensors", "README.md", "reproduce.sh"):
        assert (run_dir / "export" / name).is_file(), name
    recipe = json.loads((run_dir / "export" / "recipe.json").read_text())
    winner = document["loops"][document["best"]["loop"]]
    assert content_hash(recipe) == winner["recipe_hash"]
    card = (run_dir / "export" / "README.md").read_text()
    assert "None" not in card
    assert str(world_root(run_dir)) not in card


def world_root(run_dir: Path) -> Path:
    return run_dir.parents[2]


def test_the_example_in_the_card_gives_the_answer_that_was_scored(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    loop = f"{finished.document['best']['loop']:03d}"
    samples = (run_dir / "loops" / loop / "eval" / "heldout-test" / "samples.jsonl").read_text().splitlines()
    items = (run_dir / "data" / "items" / "heldout-test.jsonl").read_text().splitlines()
    item, sample = json.loads(items[0]), json.loads(samples[0])
    assert item["item_id"] == sample["item_id"]
    card = (run_dir / "export" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace(r'"your request\n"', repr(item["prompt"]))
    assert item["prompt"] in code or repr(item["prompt"]) in code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=run_dir / "export"
    )
    assert done.stdout == sample["prediction"] + "\n"


def test_no_key_is_anywhere(finished: Finished, world: World) -> None:
    assert KEY not in finished.out + finished.err
    for path in world.files("whole").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path


def test_status_tells_the_same_document(finished: Finished, world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rdagent_ft.cli.main", "status", "latest", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=world.environment("whole"),
        cwd=REPOSITORY,
    )
    status = json.loads(done.stdout)
    steps = status.pop("steps")
    assert status == finished.document
    assert {"prepare", "baseline", "propose", "code", "train", "evaluate", "feedback"} <= {
        s["step"] for s in steps
    }
    train = next(step for step in steps if step["step"] == "train")
    assert len(train["attempts"]) == 1


def test_reproduce_rebuilds_the_same_weights(finished: Finished, world: World) -> None:
    run_dir = Path(finished.document["run_dir"])
    script = run_dir / "export" / "reproduce.sh"
    if not script.is_file():
        pytest.skip("no recipe led over the base in this run, so nothing was exported")
    done = subprocess.run(
        ["sh", str(script)],
        capture_output=True,
        text=True,
        env={**world.environment("reproduced"), "PYTHON": sys.executable},
        cwd=REPOSITORY,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
