"""The export is put in place whole, once, and only with the weights that were trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdagent_ft.engine.install import Exported, install_export
from rdagent_ft.errors import JobError
from rdagent_ft.values import sha256_file

BASE = Path("/models/base")


def write_weights(path: Path, n_bytes: int) -> Path:
    header = json.dumps({"a": {"dtype": "I8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))
    return path


def merged_loop(run_dir: Path, loop: int, *, n_bytes: int = 8) -> Exported:
    """What train and merge jobs of a loop leave."""
    folder = run_dir / "loops" / f"{loop:03d}"
    adapter = folder / "stages" / "attempt-1" / "adapter"
    weights = write_weights(adapter / "adapter_model.safetensors", n_bytes)
    config = {"peft_type": "LORA", "base_model_name_or_path": str(BASE)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    out_dir = folder / "merge" / "attempt-1"
    write_weights(out_dir / "merged" / "model.safetensors", n_bytes + 1)
    (out_dir / "merged" / "config.json").write_text(json.dumps({"loop": loop}))
    return Exported(
        loop=loop, out_dir=out_dir, base_model=BASE, weights=adapter, is_adapter=True,
        sha256=sha256_file(weights),
    )  # fmt: skip


def exported_loop(run_dir: Path) -> int:
    export = run_dir / "export"
    assert sorted(path.name for path in export.iterdir()) == ["adapter", "merged"]
    assert (export / "adapter" / "adapter_model.safetensors").is_file()
    return json.loads((export / "merged" / "config.json").read_text())["loop"]


def test_adapter_and_model_are_installed_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    exported = merged_loop(tmp_path, 0)
    install_export(tmp_path, exported)
    assert exported_loop(tmp_path) == 0
    install_export(tmp_path, exported)
    assert exported_loop(tmp_path) == 0
    install_export(tmp_path, merged_loop(tmp_path, 1))
    assert exported_loop(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "loops"]


@pytest.mark.parametrize("n_renames", range(4))
def test_a_crash_between_any_two_renames_is_made_good(
    tmp_path: Path, n_renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_export(tmp_path, merged_loop(tmp_path, 0))
    exported = merged_loop(tmp_path, 1)
    n_left = n_renames
    rename = Path.rename

    def crashing(self: Path, target: Path) -> Path:
        nonlocal n_left
        if n_left == 0:
            raise KeyboardInterrupt
        n_left -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crashing)
    if n_renames < 3:
        with pytest.raises(KeyboardInterrupt):
            install_export(tmp_path, exported)
    else:
        install_export(tmp_path, exported)
    monkeypatch.undo()
    install_export(tmp_path, exported)
    assert exported_loop(tmp_path) == 1


def test_an_older_export_is_not_taken_for_a_missing_model(tmp_path: Path) -> None:
    install_export(tmp_path, merged_loop(tmp_path, 0))
    exported = merged_loop(tmp_path, 1)
    (exported.out_dir / "merged").rename(tmp_path / "gone")
    with pytest.raises(JobError, match="left no model"):
        install_export(tmp_path, exported)
    assert exported_loop(tmp_path) == 0


def test_other_weights_than_the_trained_ones_are_not_exported(tmp_path: Path) -> None:
    exported = merged_loop(tmp_path, 0)
    write_weights(exported.weights / "adapter_model.safetensors", 9)
    with pytest.raises(JobError, match="not the ones that were trained"):
        install_export(tmp_path, exported)
    full = exported.model_copy(update={"is_adapter": False})
    with pytest.raises(JobError, match="not the ones that were trained"):
        install_export(tmp_path, full)
    whole = sha256_file(exported.out_dir / "merged" / "model.safetensors")
    install_export(tmp_path, full.model_copy(update={"sha256": whole}))
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["merged"]


@pytest.mark.parametrize("place", ["merged", "adapter"])
@pytest.mark.parametrize("fault", ["link", "pickle", "code"])
def test_a_poisoned_folder_is_not_exported(tmp_path: Path, place: str, fault: str) -> None:
    exported = merged_loop(tmp_path, 0)
    (tmp_path / "secret").write_text("canary")
    folder = exported.out_dir / "merged" if place == "merged" else exported.weights
    match fault:
        case "link":
            (folder / "vocab.txt").symlink_to(tmp_path / "secret")
        case "pickle":
            (folder / "training_args.bin").write_bytes(b"\x80\x04.")
        case _:
            (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["a.B", null]}}')
    with pytest.raises(JobError):
        install_export(tmp_path, exported)
    assert not (tmp_path / "export").exists()


def test_a_merged_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    exported = merged_loop(tmp_path, 0)
    merged = exported.out_dir / "merged"
    merged.rename(tmp_path / "elsewhere")
    for target in (tmp_path / "elsewhere", tmp_path / "absent"):
        merged.symlink_to(target)
        with pytest.raises(JobError):
            install_export(tmp_path, exported)
        merged.unlink()
    assert not (tmp_path / "export").exists()
