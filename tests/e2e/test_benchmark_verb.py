"""`benchmark` with lm-eval's hf backend on real tiny models: layout, reuse, resume, limits, interruption."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from benchmark_case import (
    N_CHOICES,
    N_SUMS,
    REPOSITORY,
    build_models,
    document,
    plan_of,
    settings_of,
    suite_of,
    tuned_folder,
    write_benchmarks,
)

import rdagent_ft.engine.benchmark.ask_job as ask_job
from rdagent_ft.engine.benchmark.run import run_suite
from rdagent_ft.engine.lock import hold_run
from rdagent_ft.errors import JobError, RunLockedError, UserError
from rdagent_ft.evaluation.results.compare import compare_results
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.summary import summarise_folder
from rdagent_ft.evaluation.suites import Suite

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("torch") is None,
        reason="needs the extras train and lm-eval",
    ),
]
BOTH = ("mmlu_ll", "gsm8k")


class Case(NamedTuple):
    """Models, items and one finished call."""

    root: Path
    files: Path
    out: Path
    suite: Suite
    said: list[str]

    def plan(self, out: Path, **changes: object) -> BenchmarkPlan:
        fixed = {"model": self.root / "adapter", "base": self.root / "base"}
        return plan_of(out, **{**fixed, **changes})

    def run(self, plan: BenchmarkPlan, suite: Suite | None = None) -> list[str]:
        said: list[str] = []
        run_suite(plan, suite or self.suite, settings_of(self.files), said.append)
        return said


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("benchmark")
    build_models(root)
    write_benchmarks(root / "files")
    suite = suite_of(root / "files", *BOTH)
    made = Case(root, root / "files", root / "results", suite, [])
    return made._replace(said=made.run(made.plan(made.out)))


def copied(case: Case, to: Path) -> Path:
    """Return a copy of the finished call's results."""
    shutil.copytree(case.out, to)
    return to


def test_the_layout_is_the_guides(case: Case) -> None:
    tuned = tuned_folder(case.out)
    for folder in (case.out / "base", tuned):
        names = sorted(path.name for path in (folder / "lm-eval").iterdir())
        assert sum(name.startswith("results_") for name in names) == 1
        assert sum(name.startswith("samples_rdft_") for name in names) == 2
        assert {path.name for path in (folder / "samples").iterdir()} == {"mmlu_ll.jsonl", "gsm8k.jsonl"}
    assert [path.name for path in (case.out / ".work").iterdir()] == ["run.lock"], "nothing is left to resume"
    base, candidate = document(case.out / "base"), document(tuned)
    assert candidate["model"]["parent"] == base["model"]["fingerprint"] != candidate["model"]["fingerprint"]
    assert candidate["model"]["kind"] == "lora"
    assert (candidate["suite"]["items_sha"], candidate["suite"]["limit"]) == (case.suite.items_sha, None)
    for written in (base, candidate):
        entries = written["benchmarks"]
        assert (entries["gsm8k"]["n"], entries["gsm8k"]["metric"]) == (N_SUMS, "numeric_match")
        assert (entries["mmlu_ll"]["n"], entries["mmlu_ll"]["role"]) == (N_CHOICES, "target")
        assert written["failure"] is None


def test_the_summary_compares_both(case: Case, tmp_path: Path) -> None:
    summary = summarise_folder(copied(case, tmp_path / "r"))
    assert summary.comparison is not None
    assert summary.comparison.target == "mmlu_ll"
    assert summary.comparison.pairs["gsm8k"].n_pairs == N_SUMS


def test_lm_evals_own_files_say_the_same(case: Case) -> None:
    tuned = tuned_folder(case.out)
    ours = compare_results(read_result(case.out / "base"), read_result(tuned)).pairs["mmlu_ll"]
    theirs = compare_results(read_result(case.out / "base" / "lm-eval"), read_result(tuned / "lm-eval"))
    pair = theirs.pairs["rdft_mmlu_ll_test"]
    assert pair.metric == "acc"
    assert (pair.n_pairs, pair.delta, pair.base, pair.cand) == (
        ours.n_pairs,
        ours.delta,
        ours.base,
        ours.cand,
    )


def test_the_base_against_itself_shows_no_difference(case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.root / "base", tmp_path / "copy")
    out = tmp_path / "r"
    (out / "fine-tuned").mkdir(parents=True)
    shutil.copytree(case.out / "base", out / "base")
    said = case.run(case.plan(out, model=tmp_path / "copy"))
    assert any("is used again" in line for line in said)
    comparison = summarise_folder(out).comparison
    assert comparison is not None
    assert all(pair.delta == 0 for pair in comparison.pairs.values())
    assert {pair.verdict for pair in comparison.pairs.values()} <= {"equivalent", "inconclusive"}
    base, copy = (
        (folder / "samples" / "gsm8k.jsonl").read_text() for folder in (out / "base", tuned_folder(out))
    )
    assert base == copy, "the same weights answer the same, in another job too"


def test_a_known_base_is_not_asked_again_and_a_foreign_one_is(case: Case, tmp_path: Path) -> None:
    out = copied(case, tmp_path / "r")
    before = (out / "base" / "benchmark.json").read_bytes()
    said = case.run(case.plan(out), suite_of(case.files, *BOTH))
    assert any("is used again" in line for line in said)
    assert (out / "base" / "benchmark.json").read_bytes() == before
    assert len(list((out / "fine-tuned").iterdir())) == 2
    # The same numbers under the name of another model, and answers that were changed afterwards.
    poisoned = json.loads(before)
    poisoned["model"]["fingerprint"] = "0" * 16
    (out / "base" / "benchmark.json").write_text(json.dumps(poisoned))
    with pytest.raises(UserError, match="of another model"):
        case.run(case.plan(out, compare_base=False))
    samples = out / "base" / "samples" / "mmlu_ll.jsonl"
    samples.write_text(samples.read_text().replace('"score": 1.0', '"score": 0.0'))
    said = case.run(case.plan(out))
    assert not any("is used again" in line for line in said)
    assert document(out / "base")["model"]["fingerprint"] == json.loads(before)["model"]["fingerprint"]
    assert sorted(p.name for p in (out / "base" / "lm-eval").iterdir()).count("run.lock") == 0
    assert len(list((out / "base" / "lm-eval").glob("results_*.json"))) == 1


def test_results_that_cannot_be_written_are_not_lost(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "r"
    out.mkdir()
    (out / "fine-tuned").write_text("a file in the way")
    with pytest.raises(JobError, match="cannot be written") as ended:
        case.run(case.plan(out))
    assert "--resume" in ended.value.render()
    (out / "fine-tuned").unlink()
    # A half-written line of one task: this task is asked again, the others are not.
    (job,) = (out / ".work").glob("job-*")
    samples = job / "out" / "samples-tuned-gsm8k-test.jsonl"
    samples.write_text(samples.read_text()[:-30])
    said = case.run(case.plan(out, resume=True))
    assert any("is used again" in line for line in said), "the base was written before"
    assert any("1 of 2 tasks were finished" in line for line in said)
    fresh, resumed = tuned_folder(case.out), tuned_folder(out)
    for name in ("gsm8k", "mmlu_ll"):
        expected = (fresh / "samples" / f"{name}.jsonl").read_text()
        assert (resumed / "samples" / f"{name}.jsonl").read_text() == expected
    assert len(list((resumed / "lm-eval").glob("results_*.json"))) == 2
    assert set(read_result(resumed / "lm-eval").sheets) == {"rdft_gsm8k_test", "rdft_mmlu_ll_test"}


def test_an_adapter_without_effect_is_no_result_and_the_base_is_kept(case: Case, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="changes no output"):
        case.run(case.plan(tmp_path / "r", model=case.root / "untrained"))
    assert document(tmp_path / "r" / "base")["failure"] is None
    assert not (tmp_path / "r" / "fine-tuned").exists()


def test_time_that_is_up_leaves_what_was_done(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_job, "WARN_AFTER_S", 0.3)
    monkeypatch.setattr(ask_job, "PROGRESS_EVERY_S", 0.5)
    said: list[str] = []
    with pytest.raises(JobError, match="gave no answer"):
        run_suite(case.plan(tmp_path / "r", timeout_s=1.0), case.suite, settings_of(case.files), said.append)
    assert any(line.startswith("warning: no new answers for") for line in said)
    assert any("s elapsed" in line and "s left" in line for line in said)


def test_partial_results_are_marked_and_decide_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up after the first task of the tuned model: what happens then, without the waiting."""
    out = copied(case, tmp_path / "r")
    real = ask_job.parse_finished

    def ended(executor, handle, request, out_dir, result):
        return real_ended(
            executor, handle, request, out_dir,
            result.model_copy(update={"reason": "deadline", "failure_class": "resource"}),
        )  # fmt: skip

    real_ended = ask_job._ended
    monkeypatch.setattr(ask_job, "_ended", ended)
    monkeypatch.setattr(
        ask_job,
        "parse_finished",
        lambda request, out_dir: {k: v for k, v in real(request, out_dir).items() if k[1] == "mmlu_ll"},
    )
    case.run(case.plan(out, timeout_s=600.0))
    written = document(tuned_folder(out))
    assert (written["status"], set(written["benchmarks"])) == ("timeout", {"mmlu_ll"})
    comparison = summarise_folder(out).comparison
    assert comparison is not None
    assert comparison.decision == "inconclusive"


def test_two_calls_do_not_write_to_one_folder(case: Case, tmp_path: Path) -> None:
    work = tmp_path / "r" / ".work"
    work.mkdir(parents=True)
    with hold_run(work), pytest.raises(RunLockedError, match="another benchmark call"):
        case.run(case.plan(tmp_path / "r"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_call_leaves_no_job(case: Case, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "r"
    script = (
        "import rdagent_ft.evaluation.suites as suites, benchmark_case, sys\n"
        "from pathlib import Path\n"
        f"suite = benchmark_case.suite_of(Path({str(case.files)!r}), 'mmlu_ll', 'gsm8k')\n"
        "import rdagent_ft.cli.benchmark_plan as plan, rdagent_ft.engine.benchmark.run as run\n"
        "plan.check_suite = lambda *_: ()\n"
        "run.load_suite = lambda _: suite\n"
        "from rdagent_ft.cli.main import main\n"
        f"main(['benchmark', {str(case.root / 'adapter')!r}, '--base', {str(case.root / 'base')!r}, "
        f"'--out', {str(out)!r}])\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"}
    env |= {"FT_FILE_PATH": str(case.files), "FT_ALLOW_CPU": "1", "FT_EXECUTOR": "local"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.glob(".work/job-*/out/request.json")):
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "--resume goes on" in said
    assert "Traceback" not in said
    marks = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_readable(path)]
    assert not any(str(out).encode() in mark for mark in marks)


def _is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
