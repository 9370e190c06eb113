"""Items, requests and jobs for tests of the endpoint harness."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint

from rdagent_ft.evaluation.endpoint.harness import EndpointHarness
from rdagent_ft.evaluation.endpoint.partial import PARTIAL_NAME
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget, RetryRules
from rdagent_ft.evaluation.port import EvalTask

REPOSITORY = Path(__file__).resolve().parents[2]
FAST = RetryRules(backoff_s=0.01, backoff_cap_s=0.02)
KEY = ("base", "heldout", "val")

needs_lm_eval = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "tenacity", "aiohttp")),
    reason="needs lm-eval[api]",
)


def write_items(path: Path, n_items: int, **changes: Any) -> None:
    """Write items i0, i1, …; the right answer of every third one is what the fake server says."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n_items):
            prompt = f"question number {number}"
            gold = prompt[::-1] + "\n" if number % 3 == 0 else "something else"
            messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
            line = {"item_id": f"i{number}", "prompt": prompt, "gold": gold, "messages": messages, **changes}
            stream.write(json.dumps(line) + "\n")


def request_of(folder: Path, server: FakeEndpoint, n_items: int, **changes: Any) -> EndpointRequest:
    """Return a request of one target and one task; keys of target, task and request may be changed."""
    target = {"role": "base", "base_url": server.base_url, "model": "tiny", "request_timeout_s": 20.0}
    task = {
        "benchmark": "heldout",
        "split": "val",
        "items_file": folder / "items.jsonl",
        "n_items": n_items,
        "scorer": "exact_match",
        "max_new_tokens": 64,
    }
    request: dict[str, Any] = {"prompt_format": "plain", "fingerprint": "weights-1", "retry": FAST}
    for name, value in changes.items():
        if name in EndpointTarget.model_fields:
            target[name] = value
        elif name in EvalTask.model_fields:
            task[name] = value
        else:
            request[name] = value
    return EndpointRequest(targets=(EndpointTarget(**target),), tasks=(EvalTask(**task),), **request)


def run_job(request: EndpointRequest, out_dir: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the job in a process of its own to its end."""
    out_dir.mkdir(exist_ok=True)
    argv = EndpointHarness().prepare(request, out_dir)
    return subprocess.run(
        argv,
        cwd=out_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def partial_rows(out_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of the partial file; a cut line fails."""
    return [json.loads(line) for line in (out_dir / PARTIAL_NAME).read_text().splitlines()]
