"""Answers that are programs, run in containers of a real engine: only what passes its tests passes."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rdagent_ft.evaluation.code.programs import program_of
from rdagent_ft.evaluation.code.run_code import code_runner
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, CodeRunner
from rdagent_ft.execution.contained import Limits
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_labels import OUT_DIR, labels_of, own_labels
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.images import newest_image

Task = tuple[str, str, str, str]
"""Case id, gold, prompt, published solution."""


@pytest.fixture
def engine(docker_engine: None, tmp_path: Path) -> Iterator[Engine]:
    """A connection; what a test leaves running is removed."""
    found = connect()
    yield found
    for entry in found.containers(own_labels()):
        if labels_of(entry).get(OUT_DIR, "").startswith(str(tmp_path)):
            found.remove(entry["Id"])
    found.close()


def make_runner(engine: Engine, root: Path, wall_s: float = 15.0) -> CodeRunner:
    image = newest_image(engine.client, "lm-eval")
    assert image is not None, "build it first: scripts/docker-ci.sh"
    limits = job_limits(engine.info, memory_gib=4.0, output_gib=1.0)
    executor = DockerExecutor(engine, lambda _kind: image.image_id, limits=limits, grace_s=0.5)
    return code_runner(
        executor, root, name="test-code", deadline_unix=time.time() + 300, limits=Limits(wall_s=wall_s)
    )


def humaneval(folder: Path) -> list[Task]:
    with gzip.open(folder / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    fields = ("task_id", "prompt", "entry_point", "test")
    return [
        (
            row["task_id"],
            json.dumps({name: row[name] for name in fields}),
            row["prompt"],
            row["canonical_solution"],
        )
        for row in rows
    ]


def mbpp(folder: Path) -> list[Task]:
    rows = [json.loads(line) for line in (folder / "mbpp" / "mbpp.jsonl").read_text("utf-8").splitlines()]
    return [
        (
            f"mbpp/{row['task_id']}",
            json.dumps(
                {"task_id": row["task_id"], "tests": row["test_list"], "setup": row["test_setup_code"]}
            ),
            row["text"],
            f"Here you are.\n\n```python\n{row['code']}\n```\n",
        )
        for row in rows
        if 11 <= row["task_id"] <= 510
    ]


SPOILER = """
for _name, _value in list(globals().items()):
    if callable(_value) and getattr(_value, "__module__", None) == __name__ and not isinstance(_value, type):
        globals()[_name] = lambda *_, **__: None
"""


def spoilt(solution: str) -> str:
    """Return the answer with functions that return None."""
    if "```" in solution:
        return solution.replace("\n```\n", f"\n{SPOILER}\n```\n")
    return "    return None\n"


def cases(tasks: list[Task], suffix: str, change: Callable[[str], str]) -> list[CodeCase]:
    return [
        CodeCase(case_id=f"{case_id}-{suffix}", program=program_of(gold, prompt, change(solution)))
        for case_id, gold, prompt, solution in tasks
    ]


@pytest.mark.real_data
def test_published_solutions_pass_and_their_broken_versions_fail(
    engine: Engine, shared_data: Path, tmp_path: Path
) -> None:
    tasks = humaneval(shared_data) + mbpp(shared_data)
    assert len(tasks) == 664
    results = make_runner(engine, tmp_path)(cases(tasks, "whole", str) + cases(tasks, "spoilt", spoilt))
    whole, wrong = results[:664], results[664:]
    assert [result for result in whole if result.outcome != "passed"] == []
    assert [result for result in wrong if result.outcome not in {"failed", "timeout"}] == []


def test_hostile_programs_share_a_container_and_harm_nobody(engine: Engine, tmp_path: Path) -> None:
    hostile = {
        "kills_its_parent": "import os\nos.kill(os.getppid(), 9)",
        "kills_everybody": "import os\nos.kill(-1, 9)",
        "fork_bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "memory": "x = []\nwhile True: x.append(bytearray(1 << 24))",
        "leaves": "import os\nos._exit(0)",
        "writes": "open('/tmp/x', 'w')",
        "rewrites": f"open({str(tmp_path)!r} + '/results.jsonl', 'a')",
        "reads_its_parents_memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
        "reads_its_parents_environment": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
        "reads_the_request": "import glob\nassert not glob.glob('/out/*.json')\nassert 0, 'no request'",
        "is_somebody_else": f"import os\nassert os.getuid() != {os.getuid()}",
    }
    pairs = [
        (name, code) for bad in hostile.items() for name, code in (bad, (f"after {bad[0]}", "assert True"))
    ]
    found = make_runner(engine, tmp_path, wall_s=4.0)([CodeCase(case_id=n, program=p) for n, p in pairs])
    by_name: dict[str, CodeResult] = {result.case_id: result for result in found}
    assert {name: by_name[f"after {name}"].outcome for name in hostile} == dict.fromkeys(hostile, "passed")
    expected = {**dict.fromkeys(hostile, "failed"), "fork_bomb": "timeout", "memory": "memory"}
    assert {name: by_name[name].outcome for name in hostile} == expected
    assert by_name["reads_the_request"].detail == "AssertionError: no request"
    assert "Permission denied" in by_name["reads_its_parents_memory"].detail
    assert "Permission denied" in by_name["reads_its_parents_environment"].detail


def test_a_deadline_leaves_what_was_found_and_scores_nobody_else(engine: Engine, tmp_path: Path) -> None:
    image = newest_image(engine.client, "lm-eval")
    assert image is not None
    limits = job_limits(engine.info, memory_gib=2.0, output_gib=1.0)
    executor = DockerExecutor(engine, lambda _kind: image.image_id, limits=limits, grace_s=0.5)
    run = code_runner(
        executor, tmp_path, name="test-code", deadline_unix=time.time() + 12, limits=Limits(wall_s=120.0)
    )
    programs = ["assert True", "while True: pass", "while True: pass", "while True: pass"]
    cases = [CodeCase(case_id=str(n), program=program) for n, program in enumerate(programs)]
    results = run(cases)
    assert [result.outcome for result in results] == ["passed", "not_run", "not_run", "not_run"]
    assert "deadline" in results[1].detail
    assert run(cases) == results
