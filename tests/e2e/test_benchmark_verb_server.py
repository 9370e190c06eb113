"""`benchmark --backend server`: a real vLLM on CPU serves base and adapter, one after the other asked.

Needs FT_TEST_SERVE: the Python of an environment with vLLM (`scripts/serve-ci.sh` makes one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from benchmark_case import (
    N_CHOICES,
    document,
    plan_of,
    settings_of,
    suite_of,
    tuned_folder,
    write_benchmarks,
)
from world import build

from rdagent_ft.engine.benchmark.run import run_suite
from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.results.read import read_result

SERVE = os.environ.get("FT_TEST_SERVE")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(SERVE is None, reason="FT_TEST_SERVE names no Python with vLLM"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose attention heads vLLM serves on CPU, and an adapter of it."""
    root = tmp_path_factory.mktemp("served")
    build(root, n_rows=200, hidden=64)
    write_benchmarks(root / "files")
    tests = Path(__file__).resolve().parents[1] / "evaluation"
    code = "from pathlib import Path; from tiny_model import build_adapter; "
    code += f"build_adapter(Path({str(root / 'tiny')!r}), Path({str(root / 'adapter')!r}), zero=False)"
    env = {**os.environ, "PYTHONPATH": str(tests)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)
    return root


def test_base_and_adapter_are_served_and_compared(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    plan = plan_of(tmp_path / "r", model=root / "adapter", base=root / "tiny", backend="server")
    suite = suite_of(root / "files", "mmlu_ll", "gsm8k")
    run_suite(plan, suite, settings_of(root / "files", serve_python=SERVE), said.append)
    base, tuned = document(plan.out / "base"), document(tuned_folder(plan.out))
    for written in (base, tuned):
        assert written["failure"] is None, said
        assert written["engine"]["server"] == "vllm"
        assert written["benchmarks"]["mmlu_ll"]["n"] == N_CHOICES
    assert sum("starting a server" in line for line in said) == 1, "one server for base and adapter"
    assert set(read_result(tuned_folder(plan.out) / "lm-eval").sheets) == {
        "rdft_gsm8k_test", "rdft_mmlu_ll_test",
    }  # fmt: skip
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])]
    assert left == []


def test_an_adapter_that_no_server_applies_has_a_way_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "adapter", tmp_path / "dora")
    place = tmp_path / "dora" / "adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"use_dora": True}))
    plan = plan_of(tmp_path / "r", model=tmp_path / "dora", base=root / "tiny", backend="server")
    with pytest.raises(PreflightError, match="DoRA") as refused:
        run_suite(plan, suite_of(root / "files", "gsm8k"), settings_of(root / "files"), lambda _: None)
    assert "--backend hf" in refused.value.render()
