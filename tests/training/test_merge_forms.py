"""Storing a model in 16 bits keeps names, shards and everything that is no weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.training.export_plan import CONVERTER, check_gguf, find_converter, read_form_result
from rdagent_ft.training.quantise_job import DoesNotFitError, cast_folder

pytestmark = pytest.mark.train


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two weight files with an index, as large models are saved."""
    folder = tmp_path / "model"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    one = {"a": torch.randn(40, 30, generator=generator), "ids": torch.arange(7)}
    other = {"b": torch.randn(50, generator=generator)}
    save_file(one, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file(other, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    weight_map = dict.fromkeys(one, "model-00001-of-00002.safetensors") | {
        "b": "model-00002-of-00002.safetensors"
    }
    index = {"metadata": {"total_parameters": 1257, "total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"dtype": "float32", "torch_dtype": "float32", "x": 1}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_become_half_as_large_and_nothing_else_changes(
    sharded: Path, tmp_path: Path, dtype: str
) -> None:
    out = tmp_path / "out"
    cast_folder(sharded, out, dtype)
    for path in sorted(sharded.glob("*.safetensors")):
        before, after = load_file(path), load_file(out / path.name)
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            wanted = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
            assert after[name].dtype == wanted
            assert torch.equal(after[name], tensor.to(wanted))
    config = json.loads((out / "config.json").read_text())
    assert config == {"dtype": dtype, "torch_dtype": dtype, "x": 1}
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.stat().st_size for p in out.glob("*.safetensors"))
    assert set(index["weight_map"]) == {"a", "b", "ids"}
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    assert not (out / "pytorch_model.bin").exists()


def test_a_weight_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"big": torch.tensor([1e5])}, folder / "model.safetensors")
    with pytest.raises(DoesNotFitError, match=r"big are too large for torch\.float16"):
        cast_folder(folder, tmp_path / "half", "float16")
    cast_folder(folder, tmp_path / "brain", "bfloat16")
    assert load_file(tmp_path / "brain/model.safetensors")["big"].isfinite().all()


def test_the_converter_is_found_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="which is not on PATH"):
        find_converter({"PATH": str(tmp_path)})
    with pytest.raises(PreflightError, match="there is no convert_hf_to_gguf"):
        find_converter({"FT_LLAMA_CPP": str(tmp_path), "PATH": str(tmp_path)})
    script = tmp_path / CONVERTER
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for environ in ({"FT_LLAMA_CPP": str(tmp_path)}, {"FT_LLAMA_CPP": str(script)}, {"PATH": str(tmp_path)}):
        assert find_converter(environ) == script


@pytest.mark.parametrize(
    "raw",
    [b"", b"GGUF", b"GGML" + bytes(20), b"GGUF" + (3).to_bytes(4, "little") + bytes(8), b"GGUF" + bytes(8)],
)
def test_what_is_no_gguf_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(raw)
    with pytest.raises(JobError, match="left no GGUF model"):
        check_gguf(tmp_path, "m.gguf")


def test_a_job_that_reports_nothing_usable_has_failed(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"form": "8bit"}))
    with pytest.raises(JobError, match="not usable: form"):
        read_form_result(tmp_path)
