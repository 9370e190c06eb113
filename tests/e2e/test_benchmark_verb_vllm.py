"""`benchmark --backend vllm`: a real vLLM inside the job on CPU, beside lm-eval's hf backend.

Needs FT_TEST_SERVE: the Python of an environment with vLLM and lm-eval (`scripts/serve-ci.sh` makes one).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_case import (
    N_CHOICES,
    N_SUMS,
    document,
    plan_of,
    settings_of,
    suite_of,
    tuned_folder,
    write_benchmarks,
)
from world import build

from rdagent_ft.engine.benchmark.ask_plan import AskPlan
from rdagent_ft.engine.benchmark.ask_vllm import check_vllm
from rdagent_ft.engine.benchmark.documents import known_base
from rdagent_ft.engine.benchmark.run import run_suite
from rdagent_ft.engine.benchmark.subjects import subjects_of
from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.results.read import read_result

SERVE = os.environ.get("FT_TEST_SERVE")
MINIMUM_EQUAL = 0.9
"""Share of greedy answers that two engines must give alike; float32 on CPU gives all."""
needs_vllm = pytest.mark.skipif(SERVE is None, reason="FT_TEST_SERVE names no Python with vLLM")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("torch") is None,
        reason="needs the extras train and lm-eval",
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose attention heads vLLM computes on CPU, and two adapters of it."""
    root = tmp_path_factory.mktemp("in-process")
    build(root, n_rows=200, hidden=64)
    write_benchmarks(root / "files")
    code = "from pathlib import Path; from tiny_model import build_adapter\n"
    for name, zero in (("adapter", False), ("untrained", True)):
        code += f"build_adapter(Path({str(root / 'tiny')!r}), Path({str(root / name)!r}), zero={zero})\n"
    tests = Path(__file__).resolve().parents[1] / "evaluation"
    env = {**os.environ, "PYTHONPATH": str(tests)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)
    return root


def plan_for(root: Path, out: Path, engine: str, **changes: Any) -> AskPlan:
    plain = plan_of(out, **{"model": root / "adapter", "base": root / "tiny", **changes})
    return AskPlan.model_validate({**plain.model_dump(), "engine": engine})


def run(root: Path, out: Path, engine: str, **changes: Any) -> list[str]:
    said: list[str] = []
    suite = suite_of(root / "files", "mmlu_ll", "gsm8k")
    plan = plan_for(root, out, engine, **changes)
    run_suite(plan, suite, settings_of(root / "files", serve_python=SERVE), said.append)
    return said


def answers_in(folder: Path) -> list[tuple[str, str, str, Any]]:
    """Return what was answered to what, and how it was scored, of both benchmarks."""
    rows = [
        json.loads(line)
        for name in ("gsm8k", "mmlu_ll")
        for line in (folder / "samples" / f"{name}.jsonl").read_text().splitlines()
    ]
    return [(row["item_id"], row["prompt_hash"], row["prediction"], row["score"]) for row in rows]


@needs_vllm
def test_vllm_in_the_job_answers_as_transformers_do(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "hf", "hf")
    said = run(root, tmp_path / "vllm", "vllm")
    for hf, vllm in (
        (tmp_path / "hf" / "base", tmp_path / "vllm" / "base"),
        (tuned_folder(tmp_path / "hf"), tuned_folder(tmp_path / "vllm")),
    ):
        written = document(vllm)
        assert written["failure"] is None, said
        assert written["engine"]["server"] == "lm-eval vllm"
        assert written["benchmarks"]["mmlu_ll"]["n"] == N_CHOICES
        assert written["generation"] == document(hf)["generation"]
        theirs, ours = answers_in(hf), answers_in(vllm)
        assert [row[:2] for row in ours] == [row[:2] for row in theirs], "the same items and prompts"
        n_equal = sum(one == other for one, other in zip(ours, theirs, strict=True))
        assert n_equal >= MINIMUM_EQUAL * (N_SUMS + N_CHOICES), (ours, theirs)
        assert set(read_result(vllm / "lm-eval").sheets) == {"rdft_gsm8k_test", "rdft_mmlu_ll_test"}
    assert answers_in(tmp_path / "vllm" / "base") != answers_in(tuned_folder(tmp_path / "vllm"))
    # A base that transformers answered for is not taken for one that vLLM answered for.
    suite = suite_of(root / "files", "mmlu_ll", "gsm8k")
    for engine, is_known in (("hf", True), ("vllm", False)):
        plan = plan_for(root, tmp_path / "hf", engine)
        subjects = subjects_of(plan, suite, root / "files")
        assert (known_base(plan, suite, subjects, "cpu") is not None) == is_known


@needs_vllm
def test_what_vllm_does_not_apply_is_refused_or_found(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "adapter", tmp_path / "dora")
    place = tmp_path / "dora" / "adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"use_dora": True}))
    with pytest.raises(PreflightError, match="DoRA"):
        run(root, tmp_path / "r", "vllm", model=tmp_path / "dora")
    shutil.copytree(root / "tiny", tmp_path / "narrow")
    config = tmp_path / "narrow" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"head_dim": 16}))
    with pytest.raises(PreflightError, match="cannot load") as refused:
        run(root, tmp_path / "r", "vllm", model=tmp_path / "narrow")
    assert "head_dim" in refused.value.render()


def test_an_environment_without_vllm_or_lm_eval_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="none is named"):
        check_vllm(None, "local")
    with pytest.raises(PreflightError, match="not with docker"):
        check_vllm(Path(sys.executable), "docker")
    with pytest.raises(PreflightError, match="does not run"):
        check_vllm(tmp_path / "python", "local")
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(PreflightError, match="has no vLLM") as refused:
            check_vllm(Path(sys.executable), "local")
        assert "serve-ci.sh" in refused.value.render()
