"""Writing the demo's dataset and installing its base: whole, once, and of the right version."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rdagent_ft.data.models import resolve_model
from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.split import split_rows
from rdagent_ft.demo import build
from rdagent_ft.demo.base_model import BaseVariant
from rdagent_ft.demo.build import (
    MARKER,
    N_ITEMS,
    base_identity,
    base_is_built,
    base_job_spec,
    base_path,
    install_base,
    write_demo_dataset,
)
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.scorers import choose_scorer
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.values import sha256_file

# version -> hash. A changed hash needs a new version: old files and bases are made again only then.
DATASET_SHA256 = {1: "cd0f03d6e3e90bbdc92b66ebbb2dba5b00f31155b60bcf400cbc999e35a09c8c"}
BASE_SHA256 = {
    (1, "plain"): "d54f68e32ebd3e68ba89752b407e5248a4eb121db3c27ffdedf43759983a8c3e",
    (1, "learned"): "042f7ba19dffa654626e57677350f7eea3a86fcc7d06bc7c2f72f49b0163188e",
}
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip


def leave_model(out_dir: Path, weights: bytes = b"weights") -> Path:
    """What a job leaves, without training."""
    folder = out_dir / "model"
    folder.mkdir(parents=True)
    for name in MODEL_FILES:
        (folder / name).write_bytes(weights if name.endswith(".safetensors") else b"{}")
    return out_dir


def test_the_file_is_the_same_everywhere_and_its_version_is_held(tmp_path: Path) -> None:
    path = write_demo_dataset(tmp_path)
    assert path == tmp_path / "datasets/demo/router/router.jsonl"
    assert sha256_file(path) == DATASET_SHA256[build.DATASET_VERSION]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(set(row) == {"prompt", "completion", "source"} for row in rows)


@pytest.mark.parametrize("variant", ["plain", "learned"])
def test_the_version_of_the_base_is_held(variant: BaseVariant) -> None:
    digest = hashlib.sha256(base_identity(variant).encode()).hexdigest()
    assert digest == BASE_SHA256[build.BASE_VERSION, variant]


def test_a_second_write_changes_nothing(tmp_path: Path) -> None:
    path = write_demo_dataset(tmp_path, n_items=210)
    before = path.stat()
    write_demo_dataset(tmp_path, n_items=210)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("damage", ["cut", "gone", "marker", "version"])
def test_a_damaged_or_old_dataset_is_made_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_demo_dataset(tmp_path, n_items=210)
    whole = sha256_file(path)
    marker = path.parent / MARKER
    match damage:
        case "cut":
            path.write_text("{", encoding="utf-8")
        case "gone":
            path.unlink()
        case "marker":
            marker.write_text("not json", encoding="utf-8")
        case _:
            monkeypatch.setattr(build, "DATASET_VERSION", 99)
    write_demo_dataset(tmp_path, n_items=210)
    assert sha256_file(path) == whole
    assert json.loads(marker.read_text(encoding="utf-8"))["version"] == build.DATASET_VERSION


def test_the_program_reads_splits_and_scores_it_as_meant(tmp_path: Path) -> None:
    write_demo_dataset(tmp_path)
    rows, report = read_rows(resolve_dataset("demo/router", tmp_path))
    assert report.format == "prompt_completion"
    assert not report.dropped
    assert {row.source for row in rows} == {"traces", "support", "scraped"}
    clusters = near_duplicate_clusters(rows)
    assert len(set(clusters.values())) == N_ITEMS, "no two distinct requests share a group"
    splits = split_rows(rows, clusters, seed=42, dev_items=200, val_items=500, test_items=1000)
    assert len(splits["val"]) == 500
    assert len(splits["test"]) >= 500
    assert len(splits["train"]) >= 2_500
    scorer, _ = choose_scorer([row.completion for row in splits["train"]])
    assert scorer == "json_match"


def test_shuffled_labels_go_to_a_dataset_of_their_own(tmp_path: Path) -> None:
    path = write_demo_dataset(tmp_path, n_items=210, labels="shuffled")
    assert path == tmp_path / "datasets/demo/router-shuffled/router.jsonl"
    assert sha256_file(path) != sha256_file(write_demo_dataset(tmp_path, n_items=210))


def test_a_base_is_installed_whole_and_replaced(tmp_path: Path) -> None:
    assert not base_is_built(tmp_path)
    folder = install_base(leave_model(tmp_path / "job-1"), tmp_path)
    assert folder == base_path(tmp_path) == tmp_path / "models/demo/router-base"
    assert base_is_built(tmp_path)
    assert not base_is_built(tmp_path, "learned")
    install_base(leave_model(tmp_path / "job-2", b"newer"), tmp_path)
    assert (folder / "model.safetensors").read_bytes() == b"newer"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_base_of_another_version_or_with_a_missing_file_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install_base(leave_model(tmp_path / "job"), tmp_path)
    monkeypatch.setattr(build, "BASE_VERSION", 99)
    assert not base_is_built(tmp_path)
    monkeypatch.undo()
    (folder / "tokenizer.json").unlink()
    assert not base_is_built(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "link", "folder"])
def test_what_is_no_model_file_is_not_installed(tmp_path: Path, fault: str) -> None:
    install_base(leave_model(tmp_path / "good"), tmp_path)
    weights = leave_model(tmp_path / "bad") / "model" / "model.safetensors"
    weights.unlink()
    if fault == "link":
        weights.symlink_to(__file__)
    elif fault == "folder":
        weights.mkdir()
    with pytest.raises(JobError, match=r"model\.safetensors"):
        install_base(tmp_path / "bad", tmp_path)
    assert base_is_built(tmp_path), "the one that was there stays"
    assert len(list(base_path(tmp_path).parent.iterdir())) == 1


def test_the_job_has_its_inputs(tmp_path: Path) -> None:
    spec = base_job_spec(tmp_path / "try-1", 123.0)
    assert spec.attempt_id == "demo-base-plain-try-1"
    assert spec.deadline_unix == 123.0
    assert json.loads((tmp_path / "try-1" / "spec.json").read_text(encoding="utf-8"))["chat"] is False
    corpus = (tmp_path / "try-1" / "corpus.jsonl").read_text(encoding="utf-8")
    assert '"route\\":\\"math\\"' not in corpus


@pytest.mark.train
def test_the_job_leaves_a_base_that_loads(tmp_path: Path) -> None:
    executor = LocalExecutor()
    spec = base_job_spec(tmp_path / "try-1", time.time() + 120, max_steps=3)
    handle = executor.submit(spec)
    try:
        while executor.poll(handle).state == "running":
            time.sleep(0.1)
    finally:
        executor.cancel(handle)
    result = executor.collect(handle)
    assert result.failure_class == "ok", result.log_tail
    folder = install_base(spec.out_dir, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plan = '{"route":"math","tools":["calculator"],"handoff":false}'
    ids = tokenizer.encode(plan, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == plan
    assert 10 <= len(ids) <= 30
    model = resolve_model("demo/router-base", tmp_path, memory_gib=4.0, device="cpu", gpu_memory_gib=None)
    assert 1_000_000 < model.n_params < 2_000_000
    assert model.max_positions == 512
    assert not model.has_chat_template
