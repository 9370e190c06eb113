"""The real OpenCompass 0.5.4 against a local server; a run takes about 20 s.

scripts/opencompass-ci.sh makes its environment; FT_TEST_OPENCOMPASS names its Python.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Held, Reply, Status
from oc_fixtures import AWKWARD, make_request, make_task, own_items

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.items import EvalItem, refuse_incomplete
from rdagent_ft.evaluation.opencompass.harness import OpenCompassEnd, run_opencompass, score_end
from rdagent_ft.evaluation.opencompass.prepare import prepare
from rdagent_ft.evaluation.opencompass.process import run_family
from rdagent_ft.evaluation.opencompass.spec import OpenCompassRequest
from rdagent_ft.execution.processes import MARKER

PYTHON = os.environ.get("FT_TEST_OPENCOMPASS")
TIMEOUT_S = 300.0
needs_opencompass = pytest.mark.skipif(
    PYTHON is None, reason="needs OpenCompass: run scripts/opencompass-ci.sh and set FT_TEST_OPENCOMPASS"
)


def run(request: OpenCompassRequest, out_dir: Path, **changes: Any) -> OpenCompassEnd:
    said: list[str] = changes.pop("said", [])
    arguments: dict[str, Any] = {"timeout_s": TIMEOUT_S, "should_stop": lambda: False, **changes}
    return run_opencompass(request, out_dir, Path(PYTHON or "/none"), notice=said.append, **arguments)


def add(body: dict[str, Any]) -> Reply:
    numbers = re.findall(r"(\d+) plus (\d+)", body["messages"][-1]["content"])
    return Reply(f"The answer is {sum(map(int, numbers[-1]))}." if numbers else " kept \u2028\x85\n")


def survivors() -> set[int]:
    """Processes that carry the marker of a family; ours have none."""
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environ = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"\0{MARKER}=".encode() in environ and b"COMPASS_DATA_CACHE" in environ:
                found.add(int(folder.name))
    return found


def sums(n: int) -> list[tuple[str, str]]:
    return [(f"What is {a} plus {a + 3}?", str(2 * a + 3)) for a in range(n)]


@needs_opencompass
def test_own_items_are_asked_verbatim_and_scored_by_us(tmp_path: Path) -> None:
    items, said = own_items(6), list[str]()
    before = survivors()
    with FakeOpenAI(add) as server:
        request = make_request(tmp_path, make_task(tmp_path, items), base_url=server.base_url, concurrency=4)
        end = run(request, tmp_path / "out folder", said=said)
        asked = {r.body["messages"][-1]["content"] for r in server.requests}
        bodies = [r.body for r in server.requests]
        again = run(request, tmp_path / "out folder")
    assert end.failure_class == "ok", end
    assert AWKWARD in asked
    assert len(server.requests) == 6, "the second run asked nothing"
    assert again.answers == end.answers
    assert {(b["max_tokens"], b["temperature"], b["model"]) for b in bodies} == {(64, 0.0, "cand")}
    answers = end.answers["heldout-val"].answers
    refuse_incomplete(answers, items, 1, "test")
    assert answers[2].prediction == " kept \u2028\x85\n"
    rows = score_end(request, end)["base", "heldout", "val"]
    assert [row.score for row in rows] == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert said[-1].startswith("OpenCompass: 6 of 6")
    assert not (request.endpoint.tokenizer_dir / "it_ran").exists(), "code beside the tokenizer ran"
    assert survivors() <= before


@needs_opencompass
def test_documented_benchmarks_are_asked_with_their_own_prompts(tmp_path: Path) -> None:
    pairs = sums(3)
    words: dict[str, list[dict[str, Any]]] = {
        "gsm8k": [{"question": q, "answer": f"Add.\n#### {a}"} for q, a in pairs],
        "aime25": [{"id": "x", "problem": q, "answer": int(a)} for q, a in pairs],
        "aime24": [{"problem": q, "answer": a} for q, a in pairs],
        "math": [{"problem": q, "solution": f"\\boxed{{{a}}}", "answer": a} for q, a in pairs],
        "ifeval": [
            {"key": n, "prompt": q, "instruction_id_list": ["x:y"], "kwargs": [{"k": n} if n else {}]}
            for n, (q, _) in enumerate(pairs)
        ],
        "humaneval": [
            {"task_id": f"T/{n}", "prompt": q, "entry_point": "f", "canonical_solution": "", "test": ""}
            for n, (q, _) in enumerate(pairs)
        ],
        "mbpp": [
            {"task_id": n, "text": q, "code": "", "test_list": ["assert f"]} for n, (q, _) in enumerate(pairs)
        ],
        "mmlu": [
            {"subject": s, "question": q, "choices": [a, "-1", "-2", "-3"], "answer": 0}
            for s, (q, a) in zip(["anatomy", "virology", "anatomy"], pairs, strict=True)
        ],
        "gpqa": [
            {
                "Question": q, "Correct Answer": a,
                "Incorrect Answer 1": "x", "Incorrect Answer 2": "y", "Incorrect Answer 3": "z",
            }
            for q, a in pairs
        ],
    }  # fmt: skip
    letters = ("D", "C", "B")
    tasks = [
        make_task(
            tmp_path,
            [
                EvalItem(item_id=f"{name}{n}", prompt=q, gold=letters[n] if name == "gpqa" else a)
                for n, (q, a) in enumerate(pairs)
            ],
            benchmark=name,
            documented=name,  # pyright: ignore
            records=records,
            max_new_tokens=1024,
        )
        for name, records in words.items()
    ]
    with FakeOpenAI(add) as server:
        end = run(make_request(tmp_path, *tasks, base_url=server.base_url), tmp_path / "out")
        requests = list(server.requests)
    assert end.failure_class == "ok", end
    assert (end.n_answered, len(requests)) == (27, 27)
    assert {r.body["max_tokens"] for r in requests} == {1024}, "no hard-coded 512 is left"
    boxed = [r for r in requests if r.body["messages"][-1]["content"].endswith("within \\boxed{}.")]
    assert len(boxed) == 9
    few_shot = [r for r in requests if len(r.body["messages"]) == 9]
    assert len(few_shot) == 3, "gsm8k_gen_1d7fe4 shows four examples"
    rows = score_end(make_request(tmp_path, *tasks), end)
    for name in ("gsm8k", "aime25", "aime24", "math", "mmlu"):
        assert [row.score for row in rows["base", name, "val"]] == [1.0, 1.0, 1.0], name


@needs_opencompass
def test_exit_code_0_with_a_failing_server_is_a_failure(tmp_path: Path) -> None:
    with FakeOpenAI(Status(500)) as server:
        request = make_request(
            tmp_path, make_task(tmp_path, own_items(3)), base_url=server.base_url, retries=1
        )
        end = run(request, tmp_path / "out")
    assert (end.failure_class, end.exit_code, end.n_answered) == ("server", 0, 0), end
    assert "RuntimeError" in " ".join(end.tracebacks)
    with pytest.raises(JobError, match="did not finish"):
        score_end(request, end)


@needs_opencompass
def test_a_stopped_run_leaves_partial_answers_and_goes_on_later(tmp_path: Path) -> None:
    items, release = own_items(10), threading.Event()
    first = [add] * 8
    said: list[str] = []
    with FakeOpenAI(*first, Held(release, Reply("late"))) as server:
        request = make_request(tmp_path, make_task(tmp_path, items), base_url=server.base_url, concurrency=1)
        before = survivors()
        end = run(request, tmp_path / "out", should_stop=lambda: len(server.requests) > 8, said=said)
        release.set()
    assert (end.failure_class, end.n_answered, end.n_expected) == ("stopped", 8, 10), end
    assert survivors() <= before
    assert [a.item_id for a in end.answers["heldout-val"].answers] == [i.item_id for i in items[:8]]
    with FakeOpenAI(add) as server:
        moved = request.model_copy(
            update={"endpoint": request.endpoint.model_copy(update={"base_url": server.base_url})}
        )
        end = run(moved, tmp_path / "out")
        n_asked = len(server.requests)
    assert (end.failure_class, end.n_answered, n_asked) == ("ok", 10, 2), end


@needs_opencompass
def test_a_lowered_limit_spoils_the_run(tmp_path: Path) -> None:
    items = [EvalItem(item_id="long", prompt="x" * 7000, gold="1"), *own_items(2)]
    with FakeOpenAI(add) as server:
        request = make_request(
            tmp_path, make_task(tmp_path, items, max_new_tokens=2000), base_url=server.base_url
        )
        end = run(request, tmp_path / "out")
    assert end.failure_class == "context", end
    with pytest.raises(JobError, match="do not count"):
        run(request, tmp_path / "out")


def test_a_folder_of_another_identity_is_poisoned(tmp_path: Path) -> None:
    request = make_request(tmp_path, make_task(tmp_path, own_items(2)))
    prepared = prepare(request, tmp_path / "out")
    assert prepare(request, tmp_path / "out").folder == prepared.folder
    other = request.model_copy(
        update={"endpoint": request.endpoint.model_copy(update={"fingerprint": "cd" * 16})}
    )
    assert prepare(other, tmp_path / "out").folder != prepared.folder
    (prepared.folder / "work" / "20260101_000000").mkdir()
    assert prepare(request, tmp_path / "out").reuse == "20260101_000000"
    (prepared.folder / "work" / "20260101_000001").mkdir()
    with pytest.raises(JobError, match="poisoned cache"):
        prepare(request, tmp_path / "out")
    (prepared.folder / "work" / "20260101_000001").rmdir()
    (prepared.folder / "identity.json").write_text('{"model": "another"}')
    with pytest.raises(JobError, match="poisoned cache"):
        prepare(request, tmp_path / "out")


def test_a_python_that_is_none_is_told_before_anything_runs(tmp_path: Path) -> None:
    request = make_request(tmp_path, make_task(tmp_path, own_items(2)))
    with pytest.raises(PreflightError, match="cannot start"):
        run_opencompass(request, tmp_path, tmp_path / "no-python", 5.0, lambda _: None, lambda: False)
    with pytest.raises(PreflightError, match="shell command"):
        run_opencompass(request, tmp_path, Path("/a b/python; id"), 5.0, lambda _: None, lambda: False)


def test_a_family_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; setsid sleep 600) & while :; do sleep 0.1; done"
    ended = run_family(
        ("/bin/sh", "-c", script),
        tmp_path,
        {"PATH": os.environ["PATH"], "COMPASS_DATA_CACHE": str(tmp_path)},
        tmp_path / "log",
        0.5,
        lambda: False,
        lambda: None,
        grace_s=0.3,
    )
    assert (ended.reason, ended.exit_code) == ("timeout", None)
    assert not {pid for pid in survivors() if str(tmp_path).encode() in _environ(pid)}


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_a_success_without_predictions_is_an_error(tmp_path: Path) -> None:
    """A Python that exits with 0 and does nothing, as OpenCompass may."""
    request = make_request(tmp_path, make_task(tmp_path, own_items(2)))
    with pytest.raises(JobError, match="left no prediction"):
        run_opencompass(request, tmp_path, Path("/bin/true"), 30.0, lambda _: None, lambda: False)
