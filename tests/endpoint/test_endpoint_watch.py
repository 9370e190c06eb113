"""The watchdog with real jobs, real servers that die or go silent, and real signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint_case import KEY, REPOSITORY, needs_lm_eval, partial_rows, request_of, run_job, write_items
from fake_endpoint import Drip, FakeEndpoint, Hang, Seen, Slow, Status

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.endpoint.client import start_client, stop_client
from rdagent_ft.evaluation.endpoint.ends import EXIT_CODES
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness, parse_partial
from rdagent_ft.evaluation.endpoint.partial import PARTIAL_NAME
from rdagent_ft.evaluation.endpoint.request import EndpointRequest
from rdagent_ft.evaluation.endpoint.watch import ClientEnd, run_client
from rdagent_ft.execution.processes import identify, is_alive, session_members

pytestmark = needs_lm_eval


class Probe:
    """A fake server as the watchdog sees it; `on_restart` is what a restart changes."""

    def __init__(self, server: FakeEndpoint, on_restart: Callable[[], None] = lambda: None) -> None:
        self.server = server
        self.on_restart = on_restart
        self.n_restarts = 0

    def alive(self) -> bool:
        return not self.server.dead.is_set()

    def generated_tokens(self) -> int | None:
        return self.server.generated

    def restart(self) -> None:
        self.n_restarts += 1
        self.on_restart()
        self.server.kill()
        self.server.start()


def watched(request: EndpointRequest, out_dir: Path, probe: Probe | None, **changes: Any) -> ClientEnd:
    """Run a request under the watchdog, with short times unless told otherwise."""
    out_dir.mkdir(exist_ok=True)
    options: dict[str, Any] = {
        "timeout_s": 120.0,
        "stall_s": 60.0,
        "notice": lambda line: None,
        "should_stop": lambda: False,
        "grace_s": 2.0,
        "poll_s": 0.05,
    }
    return run_client(request, out_dir, server=probe, **{**options, **changes})


def test_a_whole_evaluation(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 20)
    with FakeEndpoint(fault=lambda seen: Slow(0.05)) as server:
        request = request_of(tmp_path, server, 20, concurrency=3)
        end = watched(request, tmp_path / "job", Probe(server))
    assert (end.status, end.n_answered, end.n_unanswered, end.n_expected) == ("ok", 20, 0, 20), end
    assert end.restarts == 0
    assert end.is_complete
    assert len(EndpointHarness().parse(request, tmp_path / "job")[KEY]) == 20
    assert server.most_at_once == 3


def test_failed_items_make_it_partial(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 9)
    with FakeEndpoint(fault=lambda seen: Status(502) if "number 7" in str(seen.body) else None) as server:
        end = watched(request_of(tmp_path, server, 9), tmp_path / "job", Probe(server))
    assert (end.status, end.n_answered, end.n_unanswered) == ("partial", 8, 1), end
    assert "HTTP 502" in end.message


def test_a_server_that_dies_is_restarted_and_the_rest_is_asked(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 200)
    server = FakeEndpoint()

    def fault(seen: Seen) -> Hang | None:
        if seen.number == 113:
            threading.Thread(target=server.kill, daemon=True).start()
        return Hang() if seen.number >= 113 and not server.dead.is_set() else None

    notices: list[str] = []
    with server:
        server.fault = fault
        probe = Probe(server, lambda: setattr(server, "fault", lambda seen: None))
        request = request_of(tmp_path, server, 200)
        end = watched(request, tmp_path / "job", probe, notice=notices.append)
    assert (end.status, end.n_answered, end.restarts, probe.n_restarts) == ("ok", 200, 1, 1), end
    # 112 were answered; in flight at the kill were at most the eight that are asked at once.
    assert 200 <= server.n_requests <= 200 + 8 + 1
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert [answer.prediction for answer in answers] == [
        f"question number {number}"[::-1] for number in range(200)
    ]
    assert any("starting the server" in line for line in notices)


def test_a_server_that_dies_again_is_given_up(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 40)
    server = FakeEndpoint()

    def fault(seen: Seen) -> Hang | None:
        if seen.number in (11, 31):
            threading.Thread(target=server.kill, daemon=True).start()
            return Hang()
        return None

    with server:
        server.fault = fault
        request = request_of(tmp_path, server, 40, concurrency=1)
        end = watched(request, tmp_path / "job", Probe(server))
    assert (end.status, end.restarts) == ("server_gone", 1), end
    assert end.n_answered == 29
    partial = parse_partial(request, tmp_path / "job")[KEY]
    assert [answer.item_id for answer in partial if answer.unanswered is None] == sorted(
        (
            row["answer"]["item_id"]
            for row in partial_rows(tmp_path / "job")
            if not row["answer"]["unanswered"]
        ),
        key=lambda item_id: int(item_id[1:]),
    )


def test_a_hang_is_told_from_a_long_answer(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 3)
    notices: list[str] = []
    with FakeEndpoint(fault=lambda seen: Slow(6.0, generates=True) if seen.number == 1 else None) as server:
        end = watched(
            request_of(tmp_path, server, 3, concurrency=1),
            tmp_path / "job",
            Probe(server),
            stall_s=4.0,
            warn_after_s=2.0,
            notice=notices.append,
        )
    assert (end.status, end.restarts, end.n_answered) == ("ok", 0, 3), end
    assert any("the server still generates" in line for line in notices)


@pytest.mark.parametrize("behaviour", [Hang(), Drip()])
def test_a_hang_restarts_once_and_then_ends(tmp_path: Path, behaviour: Hang | Drip) -> None:
    write_items(tmp_path / "items.jsonl", 12)
    notices: list[str] = []
    with FakeEndpoint(fault=lambda seen: None if seen.number <= 5 else behaviour) as server:
        request = request_of(tmp_path, server, 12, concurrency=1, request_timeout_s=100.0)
        probe = Probe(server)
        end = watched(request, tmp_path / "job", probe, stall_s=5.0, notice=notices.append)
    assert (end.status, end.restarts, probe.n_restarts) == ("hang", 1, 1), end
    assert (end.n_answered, end.n_expected, end.is_complete) == (5, 12, False)
    assert "5 s" in end.message
    # The stack of the stuck job is in its log.
    assert "most recent call first" in (tmp_path / "job" / "client.log").read_text()
    with pytest.raises(JobError):
        EndpointHarness().parse(request, tmp_path / "job")


def test_a_slow_server_costs_one_request_its_time_and_no_more(tmp_path: Path) -> None:
    """Request timeouts are total: a server that drips blanks does not hold a request for ever."""
    write_items(tmp_path / "items.jsonl", 6)
    with FakeEndpoint(fault=lambda seen: Drip() if "number 2" in str(seen.body) else None) as server:
        request = request_of(tmp_path, server, 6, request_timeout_s=1.0)
        end = watched(request, tmp_path / "job", Probe(server))
    assert (end.status, end.n_answered, end.n_unanswered) == ("partial", 5, 1), end
    assert "1 s" in end.message


def test_the_timeout_keeps_what_there_is(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    notices: list[str] = []
    with FakeEndpoint(fault=lambda seen: None if seen.number <= 4 else Hang()) as server:
        request = request_of(tmp_path, server, 10, concurrency=1)
        first = watched(request, tmp_path / "job", None, should_stop=lambda: server.n_requests > 4)
        assert (first.status, first.n_answered) == ("stopped", 4), first
        end = watched(
            request,
            tmp_path / "job",
            None,
            timeout_s=5.0,
            warn_after_s=1.5,
            progress_every_s=1.0,
            notice=notices.append,
        )
    assert (end.status, end.n_answered, end.restarts) == ("timeout", 4, 0), end
    assert [answer.item_id for answer in parse_partial(request, tmp_path / "job")[KEY]] == [
        f"i{number}" for number in sorted(_numbers(server)[:4])
    ]
    assert any(line.startswith("warning: no answer for") for line in notices)
    assert any("4/10 answered" in line and "remaining" in line for line in notices)


def _numbers(server: FakeEndpoint) -> list[int]:
    return [int(prompt.split()[-1]) for prompt in server.prompts]


def test_a_stop_is_obeyed(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    with FakeEndpoint(fault=lambda seen: None if seen.number <= 3 else Hang()) as server:
        request = request_of(tmp_path, server, 10)
        end = watched(request, tmp_path / "job", None, should_stop=lambda: server.n_requests > 3)
    assert end.status == "stopped", end
    assert end.n_answered <= 3
    log = tmp_path / "job" / "client.log"
    assert "Traceback" not in log.read_text()


def test_a_killed_client_goes_on_without_double_rows(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 200)
    with FakeEndpoint(fault=lambda seen: Hang() if seen.number > 112 else None) as server:
        request = request_of(tmp_path, server, 200)
        (tmp_path / "job").mkdir()
        client = start_client(EndpointHarness().prepare(request, tmp_path / "job"), tmp_path / "job")
        wait_for(lambda: server.n_requests >= 120)
        wait_for(lambda: len((tmp_path / "job" / PARTIAL_NAME).read_text().splitlines()) >= 112)
        os.kill(client.process.pid, signal.SIGKILL)
        assert stop_client(client, 1.0) == -signal.SIGKILL
        with (tmp_path / "job" / PARTIAL_NAME).open("a") as stream:
            stream.write('{"fingerprint": "half a li')
        server.fault = lambda seen: None
        before = server.n_requests
        end = watched(request, tmp_path / "job", Probe(server))
    assert (end.status, end.n_answered) == ("ok", 200), end
    assert server.n_requests - before == 88
    keys = [row["answer"]["item_id"] for row in partial_rows(tmp_path / "job")]
    assert len(keys) == len(set(keys)) == 200


@pytest.mark.parametrize(
    "change", [{"fingerprint": "weights-2"}, {"max_new_tokens": 65}, {"extra_body": {"top_k": 1}}]
)
def test_answers_of_another_model_are_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    write_items(tmp_path / "items.jsonl", 6)
    with FakeEndpoint(answer=lambda prompt: "of the other model") as server:
        assert run_job(request_of(tmp_path, server, 6), tmp_path / "job").returncode == 0
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 6, **change)
        assert parse_partial(request, tmp_path / "job")[KEY] == []
        end = watched(request, tmp_path / "job", Probe(server))
        assert (end.status, server.n_requests) == ("ok", 6), end
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert "of the other model" not in {answer.prediction for answer in answers}


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    """Damage in the middle, a foreign item, another prompt, a row of the wrong shape."""
    write_items(tmp_path / "items.jsonl", 4)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 4)
        assert run_job(request, tmp_path / "job").returncode == 0
        path = tmp_path / "job" / PARTIAL_NAME
        rows = path.read_text().splitlines()
        other = json.loads(rows[1])
        other["answer"]["prompt_hash"] = "0" * 16
        path.write_text("\n".join([rows[0], rows[2][:40], json.dumps(other), "[]", "\x00\xff", rows[3], ""]))
        assert len(parse_partial(request, tmp_path / "job")[KEY]) == 2
        before = server.n_requests
        assert watched(request, tmp_path / "job", Probe(server)).status == "ok"
        assert server.n_requests - before == 2


def test_a_crash_of_the_client_is_told(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 5)
        (tmp_path / "job" / "samples-base-heldout-val.jsonl").mkdir(parents=True)  # cannot be replaced
        end = watched(request, tmp_path / "job", Probe(server))
    assert end.status in ("crash", "unwritable"), end
    assert (end.n_answered, end.is_complete) == (5, False)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 3)
    (tmp_path / "file").write_text("")
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 3)
        for folder in (tmp_path / "file" / "job", Path("/proc/evaluation")):
            end = run_client(
                request,
                folder,
                timeout_s=None,
                notice=lambda line: None,
                server=None,
                should_stop=lambda: False,
            )
            assert (end.status, end.n_answered, end.n_expected) == ("unwritable", 0, 3), end
            assert "evaluation" in end.message or "file" in end.message
        # The job's own word on it: the folder vanishes between prepare and start.
        (tmp_path / "job").mkdir()
        EndpointHarness().prepare(request, tmp_path / "job")
        (tmp_path / "job" / PARTIAL_NAME).mkdir()
        end = watched(request, tmp_path / "job", None)
        assert end.status == "unwritable", end
    assert server.n_requests == 0


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on file sizes fails a write as a full disk does."""
    write_items(tmp_path / "items.jsonl", 60)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 60)
        (tmp_path / "job").mkdir()
        argv = EndpointHarness().prepare(request, tmp_path / "job")
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, *argv[1:]],
            cwd=tmp_path / "job",
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == EXIT_CODES["disk_full"], done.stderr[-2000:]
        kept = len(parse_partial(request, tmp_path / "job")[KEY])
        assert 5 < kept < 60
        before = server.n_requests
        assert watched(request, tmp_path / "job", None).status == "ok"
        assert server.n_requests - before == 60 - kept


LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, {resource.RLIM_INFINITY}))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_what_ignores_sigterm_and_forks_is_gone(tmp_path: Path) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time;'\n"
        "    'signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'], process_group=0)\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    client = start_client([sys.executable, "-c", script], tmp_path)
    wait_for(lambda: (tmp_path / "child").is_file() and (tmp_path / "child").read_text() != "")
    child = identify(int((tmp_path / "child").read_text()))
    assert child is not None
    assert stop_client(client, 0.3) == -signal.SIGKILL
    wait_for(lambda: not is_alive(child))
    assert session_members(client.process.pid) == set()


def test_a_job_dies_with_its_watcher(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 3)
    with FakeEndpoint(fault=lambda seen: Hang()) as server:
        request = request_of(tmp_path, server, 3)
        (tmp_path / "job").mkdir()
        (tmp_path / "request.json").write_text(request.model_dump_json())
        script = (
            "from pathlib import Path\n"
            "from rdagent_ft.evaluation.endpoint.request import EndpointRequest\n"
            "from rdagent_ft.evaluation.endpoint.watch import run_client\n"
            "request = EndpointRequest.model_validate_json(Path('request.json').read_bytes())\n"
            "run_client(request, Path('job').absolute(), timeout_s=None, notice=print, server=None,"
            " should_stop=lambda: False)\n"
        )
        watcher = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
        )
        wait_for(lambda: server.n_requests >= 1)
        children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text().split()
        jobs = [identify(int(pid)) for pid in children]
        assert len(jobs) == 1
        watcher.kill()
        watcher.wait()
        wait_for(lambda: all(job is None or not is_alive(job) for job in jobs))


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
