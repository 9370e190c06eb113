"""A real vLLM in a container without network. Needs FT_TEST_DOCKER=1 and the built image `serve`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_models import PROMPTS

from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.server import start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.images import newest_image

pytestmark = [
    pytest.mark.train,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the extra train"),
]


@pytest.fixture
def engine(docker_engine: None) -> Iterator[Engine]:
    found = connect()
    yield found
    found.close()


def test_a_contained_server_is_reached_and_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    image = newest_image(engine.client, "serve")
    if image is None:
        pytest.skip("needs the image `serve`: rdagent-ft images build serve --variant cpu")
    script = Path(__file__).with_name("served_models.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True)
    (tmp_path / "spool").mkdir()
    spec = ServerSpec(
        model_dir=tmp_path / "base", max_model_len=128, max_lora_rank=8, device="cpu", max_num_seqs=16,
        cpu_kv_cache_gib=1,
    )  # fmt: skip
    limits = job_limits(engine.info, memory_gib=10.0, output_gib=1.0)
    executor = DockerExecutor(engine, lambda _kind: image.image_id, limits=limits, grace_s=5.0)
    attempt = f"test-serve-{int(time.time())}"
    with start_server(
        executor, spec, tmp_path / "serve", tmp_path / "spool", attempt_id=attempt,
        deadline_unix=time.time() + 900, labels={"run_dir": str(tmp_path)},
    ) as server:  # fmt: skip
        container = engine.inspect(f"ft-{attempt}")
        assert container is not None
        assert container["HostConfig"]["NetworkMode"] == "none"
        assert server.load("cand", tmp_path / "adapter", PROMPTS).canary.is_applied
        with pytest.raises(ServerError, match="as the base does"):
            server.load("zero", tmp_path / "zero", PROMPTS)
        body = json.dumps({"model": "cand", "prompt": PROMPTS[0], "max_tokens": 4}).encode()
        asked = urllib.request.Request(
            server.base_url + "/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=120) as answer:
            assert json.loads(answer.read())["usage"]["completion_tokens"] >= 1
    assert engine.inspect(f"ft-{attempt}") is None
    assert not [path for path in (tmp_path / "serve").iterdir() if path.is_socket()]
