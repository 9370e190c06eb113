"""The whole life of a server as a real local job; the server itself is a toy that starts in a moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_files import write_adapter, write_model
from toy_server import make_toy_python

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.serving import launch
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.local import LocalExecutor

REPOSITORY = Path(__file__).resolve().parents[2]
PROBES = [f"probe {number}" for number in range(8)]
WAIT_S = 60.0
Start = Callable[..., ModelServer]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at, "condition was not met in time"
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def pids(root: Path) -> list[int]:
    """The toy's process and its child, which ignores SIGTERM."""
    return [int(word) for word in (root / "serve" / "pids").read_text().split()]


def spec_for(root: Path, **changes: Any) -> ServerSpec:
    values: dict[str, Any] = {"model_dir": root / "base", "max_model_len": 128, "device": "cpu"}
    return ServerSpec.model_validate(values | changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_model(tmp_path / "base")
    (tmp_path / "adapters").mkdir()
    make_toy_python(tmp_path / "toy")
    return tmp_path


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Starts toy servers and closes them."""
    started: list[ModelServer] = []

    def begin(**options: Any) -> ModelServer:
        given = {"deadline_unix": time.time() + 300, "attempt_id": "serve-1", "load_timeout_s": WAIT_S}
        server = start_server(
            LocalExecutor(grace_s=0.5), options.pop("spec", spec_for(root)),
            root / "serve", root / "adapters", python=root / "toy" / "python", **(given | options),
        )  # fmt: skip
        started.append(server)
        return server

    yield begin
    for server in started:
        server.close()


def ask(server: ModelServer, model: str) -> Any:
    body = json.dumps({"model": model, "prompt": "x", "max_tokens": 1}).encode()
    asked = urllib.request.Request(
        server.base_url + "/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.loads(answer.read())


def test_clients_reach_the_server_by_its_url(start: Start) -> None:
    server = start()
    assert server.alive()
    before = server.generated_tokens()
    assert ask(server, server.served_name)["choices"][0]["text"] == "x"
    assert before is not None
    assert server.generated_tokens() == before + 1
    assert "python" in server.versions()


def test_the_server_gets_no_key_and_its_own_options(start: Start, root: Path) -> None:
    start(spec=spec_for(root, seed=5))
    argv = json.loads((root / "serve" / "argv").read_text())
    assert argv[argv.index("--seed") + 1] == "5"
    assert "--enable-lora" in argv


def test_a_loaded_adapter_is_proved_and_can_be_taken_out(start: Start, root: Path) -> None:
    server = start()
    loaded = server.load("cand", write_adapter(root / "a", shift=0.5), PROBES)
    assert (loaded.canary.n_probes, loaded.canary.n_differing) == (8, 8)
    assert loaded.canary.max_difference == pytest.approx(0.5)
    assert ask(server, "cand")
    assert server.adapters == (loaded,)
    server.unload("cand")
    assert server.adapters == ()
    assert list((root / "adapters").iterdir()) == []
    with pytest.raises(ServerError, match="not loaded"):
        server.unload("cand")


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({}, "inert", "as the base does"),
        ({"shift": float("nan")}, "nan", "no numbers"),
        ({"refuse": True}, "adapter", "refused"),
        ({"forget": True}, "adapter", "refused"),
        ({"use_dora": True, "shift": 1.0}, "adapter", "must be merged"),
        ({"rank": 128, "shift": 1.0}, "adapter", "rank 128"),
    ],
)
def test_an_adapter_that_is_not_applied_is_refused_and_leaves_nothing(
    start: Start, root: Path, config: dict[str, Any], kind: str, words: str
) -> None:
    server = start()
    with pytest.raises(ServerError, match=words) as caught:
        server.load("cand", write_adapter(root / "a", **config), PROBES)
    assert caught.value.kind == kind
    assert server.adapters == ()
    assert list((root / "adapters").iterdir()) == []
    assert server.load("cand", write_adapter(root / "b", shift=1.0), PROBES).name == "cand"


@pytest.mark.parametrize("name", ["base", "../cand", "", "a b"])
def test_a_name_that_is_taken_or_malformed_is_refused(start: Start, root: Path, name: str) -> None:
    with pytest.raises(ServerError, match="cannot name"):
        start().load(name, write_adapter(root / "a", shift=1.0), PROBES)


def test_a_dead_server_comes_back_once_with_its_adapters(start: Start, root: Path) -> None:
    server = start()
    server.load("cand", write_adapter(root / "a", shift=0.5), PROBES)
    url, first = server.base_url, pids(root)
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: not server.alive())
    server.restart()
    assert server.base_url == url
    assert ask(server, "cand")
    assert [adapter.name for adapter in server.adapters] == ["cand"]
    assert not any(map(is_there, first))
    second = pids(root)
    os.kill(second[0], signal.SIGKILL)
    wait_until(lambda: not server.alive())
    with pytest.raises(ServerError, match="again after 1 restart") as caught:
        server.restart()
    assert caught.value.kind in {"crash", "oom"}  # SIGKILL by nobody we know may be the kernel's
    assert not any(map(is_there, second))
    with pytest.raises(ServerError, match="closed"):
        _ = server.base_url


def test_a_server_that_answers_no_more_is_a_hang(
    start: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "END_GRACE_S", 0.5)
    server = start(max_restarts=0)
    (root / "serve" / "sick").touch()
    assert not server.alive()
    with pytest.raises(ServerError) as caught:
        server.restart()
    assert caught.value.kind == "hang"
    assert not any(map(is_there, pids(root)))


def test_a_restart_may_change_memory_and_nothing_else(start: Start, root: Path) -> None:
    server = start()
    with pytest.raises(ServerError, match="seed"):
        server.restart(spec_for(root, seed=6))
    server.restart(spec_for(root, max_num_seqs=64))
    argv = json.loads((root / "serve" / "argv").read_text())
    assert argv[argv.index("--max-num-seqs") + 1] == "64"


def test_closing_leaves_no_process_no_socket_and_no_copy(start: Start, root: Path) -> None:
    with start() as server:
        server.load("cand", write_adapter(root / "a", shift=0.5), PROBES)
        running = pids(root)
        assert all(map(is_there, running))
    server.close()
    assert not any(map(is_there, running))
    assert list((root / "adapters").iterdir()) == []
    assert not [path for path in (root / "serve").iterdir() if path.is_socket()]
    assert not server.alive()


@pytest.mark.parametrize(
    ("file", "text", "kind", "words"),
    [
        ("fail-at-start", "torch.OutOfMemoryError: CUDA out of memory.", "oom", "out of memory"),
        ("fail-at-start", "ModuleNotFoundError: No module named 'x'", "package", "No module"),
        ("fail-at-start", "ValueError: Model architectures ['X'] are not supported for now.", "model", "'X'"),
        ("die-at-first-token", "", "model", "first token"),
    ],
)
def test_an_early_end_is_told_at_once_by_its_cause(
    start: Start, root: Path, file: str, text: str, kind: str, words: str
) -> None:
    (root / "base" / file).write_text(text)
    with pytest.raises(ServerError, match=words) as caught:
        start(load_timeout_s=600.0)
    assert caught.value.kind == kind


def test_a_start_without_enough_memory_goes_down_the_ladder(start: Start, root: Path) -> None:
    (root / "base" / "too-many-seqs").write_text("64")
    server = start()
    assert server.spec.max_num_seqs == 64
    assert ask(server, "base")
    (root / "base" / "too-many-seqs").write_text("32")
    server.close()
    with pytest.raises(ServerError, match="out of memory") as caught:
        start(attempt_id="again")
    assert caught.value.kind == "oom"


def test_a_server_that_never_gets_ready_is_given_up(start: Start, root: Path) -> None:
    (root / "base" / "never-ready").touch()
    with pytest.raises(ServerError, match="not ready") as caught:
        start(load_timeout_s=1.0)
    assert caught.value.kind == "hang"
    assert LocalExecutor().reap(root) == []  # nothing was left to stop


def test_an_environment_without_the_server_is_named(start: Start, root: Path) -> None:
    for path in sorted((root / "toy" / "vllm").rglob("*.py")):
        path.unlink()
    with pytest.raises(ServerError) as caught:
        start()
    assert caught.value.kind == "package"


def test_a_bad_folder_is_refused_before_anything_starts(start: Start, root: Path) -> None:
    with pytest.raises(PreflightError) as caught:
        start(spec=spec_for(root, max_model_len=4096))
    assert [problem.problem_class for problem in caught.value.problems] == ["serve.context"]
    assert not (root / "serve").exists()


def test_an_executor_whose_files_are_elsewhere_is_refused(root: Path) -> None:
    class Remote(LocalExecutor):
        shares_files = False

    with pytest.raises(ServerError) as caught:
        start_server(
            Remote(), spec_for(root), root / "serve", root / "adapters", attempt_id="a", deadline_unix=0.0
        )
    assert caught.value.kind == "remote"


def test_the_deadline_ends_a_server_and_is_named(start: Start) -> None:
    with pytest.raises(ServerError) as caught:  # noqa: PT012 - a slow machine meets it while starting
        server = start(deadline_unix=time.time() + 6, max_restarts=0)
        wait_until(lambda: not server.alive())
        server.restart()
    assert caught.value.kind == "deadline"


def test_an_idle_server_does_not_look_stalled(root: Path) -> None:
    with start_server(
        LocalExecutor(grace_s=0.5, stall_timeout_s=1.0), spec_for(root), root / "serve", root / "adapters",
        attempt_id="a", deadline_unix=time.time() + 300, python=root / "toy" / "python", lease_s=3.0,
    ) as server:  # fmt: skip
        time.sleep(3.0)
        assert server.alive()


def orphan(root: Path, lease_s: float) -> None:
    """Start a server in a process of its own and kill that process."""
    code = (
        "import os, signal, time\nfrom pathlib import Path\n"
        "from rdagent_ft.evaluation.serving.server import start_server\n"
        "from rdagent_ft.evaluation.serving.spec import ServerSpec\n"
        "from rdagent_ft.execution.local import LocalExecutor\n"
        f"root = Path({str(root)!r})\n"
        "spec = ServerSpec(model_dir=root / 'base', max_model_len=128, device='cpu')\n"
        "start_server(LocalExecutor(grace_s=0.5), spec, root / 'serve', root / 'adapters',\n"
        "  attempt_id='o-1', deadline_unix=time.time() + 300, python=root / 'toy' / 'python',\n"
        f"  lease_s={lease_s})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == -signal.SIGKILL


def test_a_server_ends_by_itself_when_its_controller_was_killed(root: Path) -> None:
    orphan(root, lease_s=1.0)
    running = pids(root)
    wait_until(lambda: not any(map(is_there, running)))
    log = (root / "serve" / "job.log").read_text()
    assert "nobody renewed the lease" in log


def test_reaping_stops_a_server_that_nobody_waits_for(root: Path) -> None:
    orphan(root, lease_s=600.0)
    running = pids(root)
    assert all(map(is_there, running))
    assert LocalExecutor(grace_s=0.5).reap(root) == ["o-1"]
    assert not any(map(is_there, running))
