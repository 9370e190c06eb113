"""A recipe's data script in the code step: what it sees, what its rows become, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from container_double import ContainerDouble
from script_world import N_TRAIN, SPLITS, at_code_step, item

from rdagent_ft.engine.jobs import RETRY_PAUSE_S
from rdagent_ft.engine.steps.code import code
from rdagent_ft.engine.steps.propose import plan_context
from rdagent_ft.engine.summaries import summarise_step
from rdagent_ft.evaluation.rows import Score
from rdagent_ft.execution.port import JobResult
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.reporting.records import SETUP_LOOP, BaselineOutput, CodeOutput

READ = "import json\nrows = [json.loads(line) for line in open('/data/train.jsonl', encoding='utf-8')]\n"
WRITE = (
    "with open('/out/data.jsonl', 'w', encoding='utf-8') as out:\n"
    "    for row in rows:\n"
    "        out.write(json.dumps(row) + '\\n')\n"
)
COPY = READ + WRITE


def recipe(script: str, *, max_length: int = 128, effective_batch: int = 8, **data: Any) -> Recipe:
    stage = SftStage(
        adapter=FullAdapter(), max_length=max_length, effective_batch=effective_batch, micro_batch=4
    )
    return Recipe(data=DataMix(script=script, **data), stages=(stage,))


def run(root: Path, wanted: Recipe, container: ContainerDouble | None = None, **settings: Any) -> CodeOutput:
    return code(at_code_step(root, wanted, container or ContainerDouble(), **settings), 0)


def trained(root: Path) -> list[dict[str, str]]:
    lines = (root / "output/r/loops/000/data/train.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def failed(output: CodeOutput) -> tuple[str, str]:
    assert output.failure is not None
    assert not output.files
    return output.failure.failure_class, output.failure.message


def test_its_rows_take_the_place_of_the_train_split(tmp_path: Path) -> None:
    script = READ + "rows = [r for r in rows if r['source'] == 'clean']\n" + WRITE
    output = run(tmp_path, recipe(script))
    assert output.failure is None
    assert output.script is not None
    assert (output.script.n_in, output.script.n_out, output.script.n_copies) == (N_TRAIN, 40, 0)
    assert output.n_train_rows == 40
    clean = {row.completion for row in SPLITS["train"] if row.source == "clean"}
    assert {row["completion"] for row in trained(tmp_path)} == clean
    stored = tmp_path / "output/r/loops/000/files/process_data.py"
    assert stored.read_text() == script
    digest = hashlib.sha256(script.encode()).hexdigest()
    assert output.files["process_data.py"] == output.script.sha256 == digest
    assert "40 out" in summarise_step(output)


def test_the_job_is_a_bounded_cpu_job_that_sees_the_train_split_only(tmp_path: Path) -> None:
    executor = ContainerDouble()
    script = READ + "assert set(rows[0]) == {'item_id', 'messages', 'source', 'meta'}\n" + WRITE
    output = run(tmp_path, recipe(script), executor, debug_timeout=45.0)
    assert output.failure is None
    (spec,) = executor.specs
    assert (spec.kind, spec.needs_gpu, spec.env) == ("data", False, {})
    assert spec.aliases == {"/data": "data", "/out": "out"}
    assert set(spec.inputs) == {"data", "script"}
    assert executor.seen_files == [{"train.jsonl", "README.md"}]
    assert spec.deadline_unix - spec.inputs["script"].stat().st_mtime == pytest.approx(45, abs=10)
    texts = [path.read_text() for path in spec.inputs["script"].parent.rglob("*") if path.is_file()]
    assert not any(row.prompt_text in text for text in texts for row in SPLITS["val"])
    assert not (tmp_path / "output/r/loops/000/data-script/input").exists()


def test_the_mix_applies_to_its_rows(tmp_path: Path) -> None:
    script = READ + "rows = rows + rows[:10]\n" + WRITE
    output = run(tmp_path, recipe(script, dedupe="exact", max_items=30))
    assert output.script is not None
    assert (output.script.n_out, output.script.n_repeats) == (70, 10)
    assert output.dropped == {"exact duplicate": 10, "max_items": 30}
    assert output.n_train_rows == 30


def test_a_source_that_the_script_left_out_may_be_excluded_and_an_unknown_one_not(tmp_path: Path) -> None:
    script = READ + "rows = [r for r in rows if r['source'] == 'clean']\n" + WRITE
    assert run(tmp_path / "a", recipe(script, exclude_sources=("noisy",))).failure is None
    output = run(tmp_path / "b", recipe(script, exclude_sources=("nosy",)))
    assert failed(output)[0] == "data.unknown_source"
    assert output.script is not None


def test_rows_without_a_source_are_the_scripts_own(tmp_path: Path) -> None:
    script = (
        READ
        + (
            "made = [{'prompt': r['messages'][0]['content'], 'completion': 'yes'} for r in rows[:30]]\n"
            "rows = made + rows[30:]\n"
        )
        + WRITE
    )
    output = run(tmp_path, recipe(script, exclude_sources=("script",)))
    assert output.failure is None
    assert output.dropped == {"source script": 30}


def test_copies_of_held_out_items_are_dropped_and_counted(tmp_path: Path) -> None:
    prompts = [SPLITS[name][0].prompt_text for name in ("dev", "val", "test")]
    prompts.append("Please answer: " + SPLITS["val"][1].prompt_text)
    script = READ + f"rows += [{{'prompt': p, 'completion': 'x'}} for p in {prompts!r}]\n" + WRITE
    output = run(tmp_path, recipe(script))
    assert output.failure is None
    assert output.script is not None
    assert (output.script.n_out, output.script.n_copies) == (N_TRAIN + 4, 4)
    assert output.n_train_rows == N_TRAIN
    assert "4 dropped as copies of held-out items" in output.script.words


def test_items_of_a_reported_benchmark_are_copies_too(tmp_path: Path) -> None:
    question = "A baker has 12 trays with 8 rolls each and sells 50 rolls before noon; how many are left?"
    items = tmp_path / "benchmarks/gsm8k/test.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text(json.dumps({"question": question, "answer": "#### 46"}) + "\n")
    script = READ + f"rows.append({{'prompt': {question!r}, 'completion': '46'}})\n" + WRITE
    output = run(tmp_path, recipe(script), changes={"reported_benchmarks": ("gsm8k",)})
    assert output.script is not None
    assert output.script.n_copies == 1


def test_only_copies_leave_nothing_to_train_on(tmp_path: Path) -> None:
    prompts = [row.prompt_text for row in SPLITS["test"]]
    script = f"import json\nrows = [{{'prompt': p, 'completion': 'x'}} for p in {prompts!r}]\n" + WRITE
    failure_class, message = failed(run(tmp_path, recipe(script)))
    assert failure_class == "data.script_output"
    assert "20 more repeat held-out items" in message


def test_the_audit_judges_its_rows_before_anything_is_trained(tmp_path: Path) -> None:
    script = READ + "for r in rows: r['messages'][1]['content'] = 'long ' * 200\n" + WRITE
    output = run(tmp_path, recipe(script))
    assert failed(output)[0] == "data.truncated"
    assert not (tmp_path / "output/r/loops/000/data/train.jsonl").exists()


@pytest.mark.parametrize(
    ("script", "failure_class", "words"),
    [
        (READ + "raise ValueError('odd row')\n", "data.script_failed", "line 3: ValueError: odd row"),
        ("open('/data/val.jsonl')\n", "data.script_failed", "FileNotFoundError"),
        ("pass\n", "data.script_output", "wrote no"),
        (READ + "rows = []\n" + WRITE, "data.script_output", "left 0 rows"),
        (READ + "rows = rows[:5]\n" + WRITE, "data.script_output", "left 5 rows"),
        (READ + "rows[7] = {'text': 'hello'}\n" + WRITE, "data.script_output", "data.jsonl:8: neither"),
        (READ + "rows[7] = [1]\n" + WRITE, "data.script_output", "data.jsonl:8` holds a JSON list"),
        (
            "rows = 'x'\nopen('/out/data.jsonl', 'w').write('{}\\n{\"a\": \\n')",
            "data.script_output",
            "data.jsonl:2",
        ),
        ("open('/out/data.jsonl', 'w').write('{}\\n' * 1000000)\n", "data.script_output", "10000 lines"),
        ("open('/out/data.jsonl', 'w').truncate(1 << 26)\n", "data.script_output", "larger than"),
        ("open('/out/data.jsonl', 'w').write('[' * 100000)\n", "data.script_output", "nested"),
        ("open('/out/data.jsonl', 'wb').write(bytes(range(256)))\n", "data.script_output", "valid JSON"),
        ("import os\nos.symlink('/etc/passwd', '/out/data.jsonl')\n", "data.script_output", "regular file"),
    ],
)
def test_a_bad_script_fails_the_loop_by_class(
    tmp_path: Path, script: str, failure_class: str, words: str
) -> None:
    output = run(tmp_path, recipe(script))
    found, message = failed(output)
    assert found == failure_class
    assert words in message
    assert output.failure is not None
    assert output.failure.blame == "candidate"
    assert output.failure.fix
    assert not (tmp_path / "output/r/loops/000/data/train.jsonl").exists()


def replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def replace(out_dir: Path) -> None:
        (out_dir / "data.jsonl").unlink()
        make(out_dir / "data.jsonl")

    return replace


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (link, "cannot be read"),
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "not a regular file"),
        (nothing, "left no"),
    ],
)
def test_the_controller_trusts_nothing_that_the_job_said(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    """The job's own check passed, and then something else lay there."""
    output = run(tmp_path, recipe(COPY), ContainerDouble(afterwards=replaced_by(make)))
    failure_class, message = failed(output)
    assert failure_class == "data.script_output"
    assert words in message


def test_a_script_that_is_too_slow_is_a_matter_of_resources(tmp_path: Path) -> None:
    output = run(tmp_path, recipe("import time\ntime.sleep(600)\n"), debug_timeout=1.0)
    assert failed(output)[0] == "resource.deadline"
    assert output.failure is not None
    assert "it has 1 s" in (output.failure.fix or "")


def ended(failure_class: Any, reason: str, exit_code: int | None = None) -> JobResult:
    return JobResult(
        failure_class=failure_class, reason=reason, exit_code=exit_code, started_unix=0, ended_unix=1
    )


def test_a_script_that_ran_out_of_memory_is_a_matter_of_resources(tmp_path: Path) -> None:
    executor = ContainerDouble(ends=(ended("resource", "oom", 137),))
    assert failed(run(tmp_path, recipe(COPY), executor))[0] == "resource.host_oom"
    assert len(executor.specs) == 1


def test_a_lost_job_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdagent_ft.engine.jobs.RETRY_PAUSE_S", RETRY_PAUSE_S / 100)
    executor = ContainerDouble(ends=(ended("infra", "lost"),))
    assert run(tmp_path, recipe(COPY), executor).failure is None
    assert [spec.out_dir.name for spec in executor.specs] == ["attempt-1", "attempt-2"]


def test_a_recipe_that_breaks_a_rule_starts_no_container(tmp_path: Path) -> None:
    executor = ContainerDouble()
    assert failed(run(tmp_path / "a", recipe("for"), executor))[0] == "config.script_syntax"
    assert failed(run(tmp_path / "b", recipe(COPY, max_length=4096), executor))[0] == "config.bad_value"
    output = run(tmp_path / "c", recipe(COPY), executor, executor="local")
    assert failed(output)[0] == "config.needs_container"
    assert executor.specs == []


def test_rules_about_numbers_of_rows_count_the_scripts_rows(tmp_path: Path) -> None:
    """60 train rows are fewer than the batch; the 120 that the script makes are not."""
    script = (
        READ
        + ("rows += [{'prompt': 'Once more: ' + str(n), 'completion': str(n)} for n in range(60)]\n")
        + WRITE
    )
    assert run(tmp_path / "a", recipe(script, effective_batch=100)).failure is None
    assert failed(run(tmp_path / "b", recipe(COPY, effective_batch=100)))[0] == "config.conflict"


def test_a_step_that_was_cut_off_after_the_job_does_not_run_it_again(tmp_path: Path) -> None:
    executor = ContainerDouble()
    ctx = at_code_step(tmp_path, recipe(COPY), executor)
    first = code(ctx, 0)
    assert code(ctx, 0) == first
    assert len(executor.specs) == 1


def test_a_recipe_without_a_script_runs_no_job(tmp_path: Path) -> None:
    executor = ContainerDouble()
    wanted = recipe(COPY)
    plain = wanted.model_copy(update={"data": DataMix()})
    output = run(tmp_path, plain, executor)
    assert output.failure is None
    assert output.script is None
    assert "process_data.py" not in output.files
    assert output.n_train_rows == N_TRAIN
    assert executor.specs == []


def test_the_planner_is_told_where_scripts_can_run(tmp_path: Path) -> None:
    score = Score(
        benchmark="heldout", split="val", scorer="exact_match", value=0.1, stderr=0.05, ci95=(0.0, 0.2),
        n=20, n_expected=20,
    )  # fmt: skip
    baseline = BaselineOutput(
        val=score, dev=score, dev_errors={}, fingerprint="0", from_cache=False, eval_s=1.0
    )
    for executor in ("docker", "local"):
        ctx = at_code_step(
            tmp_path / executor, recipe(COPY), ContainerDouble(), executor=executor, debug_timeout=33.0
        )
        ctx.journal.finish_step(
            SETUP_LOOP, "baseline", baseline, started_utc="2026-01-01T00:00:00Z", wall_s=1
        )
        context = plan_context(ctx, 1)
        assert context.rule_facts.can_contain is (executor == "docker")
        assert context.script_limit_s == 33.0


def test_the_worlds_splits_are_apart() -> None:
    assert item(1) == item(1)
    prompts = [row.prompt_text for rows in SPLITS.values() for row in rows]
    assert len(prompts) == len(set(prompts))
