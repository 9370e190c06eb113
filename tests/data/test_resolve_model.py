"""Finding or choosing a base model: whole, without pickles, fitting the machine, with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.data.models import listed_models, resolve_model
from rdagent_ft.data.rows import ModelSource
from rdagent_ft.data.safetensors_header import count_weights, tensor_shapes
from rdagent_ft.errors import PreflightError, UserError

ModelMaker = Callable[..., Path]
FileMaker = Callable[[Path, dict[str, tuple[int, ...]]], Path]
SHORT_TEXT = st.text(min_size=1, max_size=5)


def resolve(name: str | None, file_path: Path, memory_gib: float = 16.0) -> ModelSource:
    return resolve_model(name, file_path, memory_gib=memory_gib, device="cpu", gpu_memory_gib=None)


def test_a_directory_is_read(tmp_path: Path, model_folder: ModelMaker) -> None:
    folder = model_folder(tmp_path / "m", n_params=60)
    found = resolve(str(folder), tmp_path)
    assert found.path == str(folder)
    assert (found.architecture, found.n_params, found.max_positions) == ("Qwen3ForCausalLM", 60, 512)
    assert (found.vocab_size, found.has_chat_template, found.choice_reason) == (400, True, None)
    assert found.revision == found.fingerprint
    assert len(found.fingerprint) == 16


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "config.json", "model.safetensors"]
)
def test_the_fingerprint_changes_with_any_file_that_matters(
    tmp_path: Path, model_folder: ModelMaker, name: str
) -> None:
    folder = model_folder(tmp_path / "m")
    before = resolve(str(folder), tmp_path).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("another place, the same model")
    assert resolve(str(tmp_path / "copy"), tmp_path).fingerprint == before
    raw = bytearray((folder / name).read_bytes())
    raw[-1:] = b"\x01" if name.endswith("safetensors") else b" " + raw[-1:]
    (folder / name).write_bytes(raw)
    assert resolve(str(folder), tmp_path).fingerprint != before


def test_a_registered_name_and_a_commit_are_found(tmp_path: Path, model_folder: ModelMaker) -> None:
    folder = model_folder(tmp_path / "models" / "acme" / "tiny")
    assert resolve("acme/tiny", tmp_path).path == str(folder)
    (folder / "manifest.json").write_text(json.dumps({"revision": "c0ffee", "files": {}}))
    assert resolve("acme/tiny", tmp_path).revision == "c0ffee"


def test_unknown_models_suggest_near_names(tmp_path: Path, model_folder: ModelMaker) -> None:
    model_folder(tmp_path / "models" / "acme" / "tiny-chat")
    for name, near in (("acme/tinychat", "acme/tiny-chat"), ("qwen3-1.7b", "Qwen/Qwen3-1.7B")):
        with pytest.raises(UserError) as caught:
            resolve(name, tmp_path)
        assert near in caught.value.render()
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "../x", "~nobody-here/x", "a/b:c"])
def test_odd_names_are_user_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        resolve(name, tmp_path)


def test_pickles_adapters_and_missing_parts_are_refused(tmp_path: Path, model_folder: ModelMaker) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "tokenizer.json").rename(folder / "away.json")
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        resolve(str(folder), tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        resolve(str(folder), tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="only pickled weights"):
        resolve(str(folder), tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(folder), tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="an adapter, not a base model"):
        resolve(str(folder), tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"max_position_embeddings": 9, "vocab_size": 9}', "names no architecture"),
        ('{"architectures": ["A"], "vocab_size": 9}', "names no context length"),
        ('{"architectures": ["A"], "max_position_embeddings": 9}', "names no vocabulary size"),
    ],
)
def test_an_unusable_config_is_named(
    tmp_path: Path, model_folder: ModelMaker, config: str, message: str
) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        resolve(str(folder), tmp_path)


def test_shards_are_counted_and_must_all_be_there(
    tmp_path: Path, model_folder: ModelMaker, safetensors_file: FileMaker
) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    safetensors_file(folder / "model-1.safetensors", {"a": (3, 4), "shared": (5,)})
    safetensors_file(folder / "model-2.safetensors", {"b": (2,), "shared": (5,), "scalar": ()})
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert resolve(str(folder), tmp_path).n_params == 12 + 5 + 2 + 1
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks the weight file 'model-2\.safetensors'"):
        resolve(str(folder), tmp_path)
    escape = {"weight_map": {"a": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(escape))
    with pytest.raises(UserError, match="lacks the weight file"):
        resolve(str(folder), tmp_path)


def test_a_cut_weight_file_is_found_before_training(tmp_path: Path, model_folder: ModelMaker) -> None:
    folder = model_folder(tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        resolve(str(folder), tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=5), st.lists(st.integers(0, 4), max_size=3), max_size=4
    ),
    junk=st.binary(max_size=60),
)
def test_headers_are_read_or_refused(
    tmp_path: Path, safetensors_file: FileMaker, shapes: dict[str, list[int]], junk: bytes
) -> None:
    shapes.pop("__metadata__", None)
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    path = safetensors_file(tmp_path / "a.safetensors", wanted)
    assert tensor_shapes(path) == wanted
    path.write_bytes(junk)
    try:
        assert count_weights([path]) >= 0
    except UserError as error:
        assert "safetensors" in error.message  # noqa: PT017


def test_without_a_name_the_largest_local_model_that_fits_is_taken(
    tmp_path: Path, model_folder: ModelMaker
) -> None:
    model_folder(tmp_path / "models" / "acme" / "small", n_params=100)
    model_folder(tmp_path / "models" / "large", n_params=1000)
    broken = model_folder(tmp_path / "models" / "acme" / "broken", n_params=10_000)
    (broken / "model.safetensors").write_bytes(b"")
    found = resolve(None, tmp_path)
    assert (found.name, found.n_params) == ("large", 1000)
    assert found.choice_reason is not None
    assert "largest model under" in found.choice_reason
    assert "16 GiB of main memory" in found.choice_reason


def test_a_local_model_that_is_too_large_is_not_chosen(tmp_path: Path, model_folder: ModelMaker) -> None:
    folder = model_folder(tmp_path / "models" / "Qwen" / "Qwen3-8B")
    found = resolve_model(None, tmp_path, memory_gib=64, device="cuda", gpu_memory_gib=24)
    assert found.path == str(folder)
    with pytest.raises(UserError, match="the one that fits this machine cannot be had"):
        resolve_model(None, tmp_path, memory_gib=64, device="cuda", gpu_memory_gib=20)


@pytest.mark.parametrize(
    ("device", "memory_gib", "gpu_memory_gib", "expected"),
    [
        ("cuda", 256, 141, "Qwen/Qwen3-32B"),
        ("cuda", 256, 24, "Qwen/Qwen3-8B"),
        ("cuda", 256, 15.5, "Qwen/Qwen3-4B"),
        ("cpu", 256, None, "Qwen/Qwen3-0.6B"),
        ("cpu", 4, None, "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ],
)
def test_the_listed_model_that_fits_is_asked_for(
    tmp_path: Path, device: str, memory_gib: float, gpu_memory_gib: float | None, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        resolve_model(None, tmp_path, memory_gib=memory_gib, device=device, gpu_memory_gib=gpu_memory_gib)  # type: ignore[arg-type]


def test_nothing_fits_a_very_small_machine(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no listed model can be trained with 1 GiB") as caught:
        resolve(None, tmp_path, memory_gib=1.0)
    assert caught.value.exit_code == 3


def test_the_list_is_ordered_by_size_in_every_figure() -> None:
    models = listed_models().models
    assert [item.params_b for item in models] == sorted((item.params_b for item in models), reverse=True)
    assert [item.gpu_gib for item in models] == sorted((item.gpu_gib for item in models), reverse=True)
    assert all(item.gpu_gib > 2 * item.params_b for item in models)
    assert all(item.cpu_gib is None or item.cpu_gib > 4 * item.params_b for item in models)
    assert len({item.id for item in models}) == len(models)
