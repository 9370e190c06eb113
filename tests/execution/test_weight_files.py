"""The judge of weight folders: what a job must not leave, and what a real one leaves. No doubles."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import JobError
from rdagent_ft.execution.weight_files import (
    WeightFile,
    WeightKind,
    check_weights,
    combined_sha256,
    max_model_bytes,
    read_job_tensors,
)
from rdagent_ft.tensor_files import DamagedTensorsError, Tensor, read_tensors
from rdagent_ft.values import sha256_file, sha256_text

try:
    import safetensors
except ModuleNotFoundError:  # without the train extra, the format's own library is not there to ask
    safetensors = None

BASE = Path("/models/acme/base")
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": str(BASE), "auto_mapping": None, "r": 8}
CONFIG = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "_attn_implementation": "sdpa"}


def tensor_bytes(header: dict[str, Any], n_data_bytes: int) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(n_data_bytes)


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - start) // 4] if shape is None else shape,
        "data_offsets": [start, end],
    }


WHOLE = tensor_bytes({"__metadata__": {"format": "pt"}, "a": entry(0, 24, [2, 3]), "b": entry(24, 32)}, 32)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter as our training job leaves it, in `job/adapter`."""
    folder = tmp_path / "job" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(WHOLE)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"auto_map": 7}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of two shards, in `job/model`."""
    folder = tmp_path / "job" / "model"
    folder.mkdir(parents=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, key in zip(names, "ab", strict=True):
        (folder / name).write_bytes(tensor_bytes({key: entry(0, 8)}, 8))
    index = {"metadata": {"total_size": 16}, "weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def check(folder: Path, kind: WeightKind = "adapter", **bounds: int) -> tuple[WeightFile, ...]:
    return check_weights(folder.parent, folder.name, base_model=BASE, kind=kind, **bounds)


def refused(folder: Path, kind: WeightKind = "adapter", **bounds: int) -> str:
    with pytest.raises(JobError) as caught:
        check(folder, kind, **bounds)
    return caught.value.message


def test_a_whole_adapter_and_a_sharded_model_pass_with_their_hashes(adapter: Path, model: Path) -> None:
    (only,) = check(adapter)
    weights = adapter / "adapter_model.safetensors"
    assert only == WeightFile(name=weights.name, n_bytes=len(WHOLE), sha256=sha256_file(weights))
    assert combined_sha256((only,)) == only.sha256
    shards = check(model, "model")
    hashes = [sha256_file(path) for path in sorted(model.glob("*.safetensors"))]
    assert [shard.sha256 for shard in shards] == hashes
    assert combined_sha256(shards) == sha256_text("".join(hashes))


POISONED: list[tuple[str, dict[str, Any], str]] = [
    ("adapter_config.json", {**ADAPTER, "auto_mapping": {"parent_library": "os"}}, "auto_mapping"),
    ("adapter_config.json", {**ADAPTER, "base_model_name_or_path": "/tmp/evil"}, "another base model"),
    ("adapter_config.json", {**ADAPTER, "base_model_name_or_path": None}, "another base model"),
    ("adapter_config.json", {**ADAPTER, "base_model_name_or_path": f"{BASE}/"}, "another base model"),
    ("adapter_config.json", {**ADAPTER, "peft_type": "IA3"}, "expected 'LORA'"),
    ("adapter_config.json", {"base_model_name_or_path": str(BASE)}, "expected 'LORA'"),
    ("adapter_config.json", {**ADAPTER, "megatron_config": {}, "megatron_core": "evil"}, "megatron_config"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tok", None]}}, "auto_map"),
    ("config.json", {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, "auto_map"),
    ("config.json", {"parts": [{"custom_pipelines": {"x": {"impl": "evil.P"}}}]}, "custom_pipelines"),
    ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ("config.json", {"transformers_weights": "../other.safetensors"}, "transformers_weights"),
    ("config.json", {"_attn_implementation": "evil/kernel"}, "_attn_implementation"),
    ("config.json", {"attn_implementation": {"text_config": "evil/kernel"}}, "attn_implementation"),
    ("generation_config.json", {"custom_generate": "evil/decoding"}, "custom_generate"),
]


@pytest.mark.parametrize(("name", "content", "word"), POISONED)
def test_a_config_that_makes_a_loader_run_code_is_refused(
    adapter: Path, name: str, content: dict[str, Any], word: str
) -> None:
    (adapter / name).write_text(json.dumps(content))
    message = refused(adapter)
    assert f"adapter/{name}" in message
    assert word in message


def test_the_same_keys_without_a_value_are_what_libraries_write(adapter: Path) -> None:
    empty = {"auto_map": None, "trust_remote_code": False, "custom_pipelines": None}
    (adapter / "config.json").write_text(json.dumps(CONFIG | empty))
    assert check(adapter)


def test_an_escaped_key_is_the_same_key(adapter: Path) -> None:
    (adapter / "config.json").write_text('{"\\u0061uto_map": {"AutoConfig": "evil.Config"}}')
    assert "auto_map" in refused(adapter)


@pytest.mark.parametrize(
    "name",
    ["training_args.bin", "optimizer.pt", "x.PKL", "model.pth", "a.ckpt", "a.npy", "modeling.py", "run.sh",
     "x.safetensors.py", "noending", ".hidden", "deeper/x.json", "additional_chat_templates/x.py"],
)  # fmt: skip
def test_other_files_are_refused_by_name(adapter: Path, name: str) -> None:
    (adapter / name).parent.mkdir(exist_ok=True)
    (adapter / name).write_bytes(b"\x80\x04.")
    message = refused(adapter)
    assert name.split("/")[0] in message
    assert ("pickle" in message) == name.lower().endswith((".bin", ".pt", ".pkl", ".pth", ".ckpt", ".npy"))


def test_named_templates_may_have_their_folder(adapter: Path) -> None:
    (adapter / "additional_chat_templates").mkdir()
    (adapter / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    assert check(adapter)


def test_links_pipes_and_second_names_are_refused(adapter: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "canary"}')
    victim = adapter / "special_tokens_map.json"
    for make in (
        lambda: victim.symlink_to(secret),
        lambda: victim.hardlink_to(secret),
        lambda: os.mkfifo(victim),
        lambda: victim.symlink_to("/dev/zero"),
    ):
        make()
        message = refused(adapter)
        assert victim.name in message
        assert "canary" not in message
        victim.unlink()
    assert check(adapter)


def test_a_folder_reached_by_a_link_is_refused(adapter: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    adapter.rename(elsewhere)
    adapter.symlink_to(elsewhere)
    assert "`adapter` is not a folder" in refused(adapter)
    with pytest.raises(JobError, match="not a path inside"):
        check_weights(adapter.parent, "../elsewhere", base_model=BASE, kind="adapter")


def test_sizes_and_counts_are_bounded_before_anything_is_read(adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    with weights.open("r+b") as stream:
        stream.truncate(10 << 30)  # sparse: no byte of it is on the disk
    assert "more than" in refused(adapter)  # the bound that the base gives
    assert "bytes of weights" in refused(adapter, max_bytes=1 << 40)
    weights.write_bytes(WHOLE)
    (adapter / "vocab.json").touch()
    os.truncate(adapter / "vocab.json", 65 << 20)
    assert "vocab.json` is larger" in refused(adapter)
    (adapter / "vocab.json").unlink()
    (adapter / "config.json").touch()
    os.truncate(adapter / "config.json", 9 << 20)
    assert "config.json` is larger" in refused(adapter)
    (adapter / "config.json").unlink()
    for number in range(30):
        (adapter / f"{number}.txt").touch()
    assert "too many files" in refused(adapter, max_files=20)


def test_a_zip_bomb_in_the_name_of_weights_stays_packed(adapter: Path) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("data.pkl", bytes(50 << 20))
    (adapter / "adapter_model.safetensors").write_bytes(packed.getvalue())
    assert "its header does not fit the file" in refused(adapter)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[" * 200_000, "nested too deeply|too many parts|not valid JSON"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested too deeply|not valid JSON"),
        ('{"a": [' + "[]," * 1_500_000 + "[]]}", "too many parts"),
        ("[1]", "an object was expected"),
        ("{", "not valid JSON"),
    ],
)
def test_json_that_would_fill_the_memory_is_refused(adapter: Path, content: str, word: str) -> None:
    (adapter / "tokenizer_config.json").write_text(content)
    tracemalloc.start()
    try:
        message = refused(adapter)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search(word, message)
    assert peak < 100 << 20


def test_a_model_needs_its_parts_and_no_adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text(json.dumps(ADAPTER))
    assert "does not belong to a model" in refused(model, "model")
    (model / "adapter_config.json").unlink()
    index = model / "model.safetensors.index.json"
    for shard in ("../../other/model.safetensors", "absent.safetensors", "config.json", 7, None):
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
        assert "names a weight file that is not there" in refused(model, "model")
    index.write_text(json.dumps({"weight_map": [1]}))
    assert "has no `weight_map`" in refused(model, "model")
    index.unlink()
    assert len(check(model, "model")) == 2
    (model / "config.json").unlink()
    assert "left no `model/config.json`" in refused(model, "model")
    assert "left no `absent`" in refused(model.parent / "absent", "model")


def test_an_adapter_is_one_file_of_weights(adapter: Path) -> None:
    (adapter / "model.safetensors").write_bytes(WHOLE)
    assert "does not belong to a adapter" in refused(adapter)
    (adapter / "model.safetensors").unlink()
    (adapter / "adapter_model.safetensors").unlink()
    assert "left no `adapter/adapter_model.safetensors`" in refused(adapter)


def test_the_bound_follows_the_base(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    assert max_model_bytes(tmp_path) == (1 << 30) + 8000
    assert max_model_bytes(tmp_path / "absent") == 1 << 30


BAD_HEADERS: dict[str, tuple[dict[str, Any], int]] = {
    "past the end": ({"a": entry(0, 64)}, 32),
    "bytes that no tensor owns": ({"a": entry(0, 16)}, 32),
    "a gap": ({"a": entry(0, 8), "b": entry(16, 32)}, 32),
    "an overlap": ({"a": entry(0, 24), "b": entry(16, 32)}, 32),
    "two tensors of the same bytes": ({"a": entry(0, 16), "b": entry(0, 16), "c": entry(16, 32)}, 32),
    "end before start": ({"a": entry(32, 0, [0])}, 32),
    "negative": ({"a": entry(-32, 0, [8])}, 0),
    "an unknown dtype": ({"a": entry(0, 32, [8], "OBJECT")}, 32),
    "a dtype that is no text": ({"a": {"dtype": ["F32"], "shape": [8], "data_offsets": [0, 32]}}, 32),
    "another shape": ({"a": entry(0, 32, [9])}, 32),
    "an enormous shape": ({"a": entry(0, 32, [2**60, 2**60, 2**60])}, 32),
    "a true length": ({"a": entry(0, 4, [True])}, 4),
    "a float length": ({"a": entry(0, 4, [1.0])}, 4),  # type: ignore[list-item]
    "many dimensions": ({"a": entry(0, 4, [1] * 33)}, 4),
    "a key too many": ({"a": entry(0, 32) | {"loader": "os.system"}}, 32),
    "no entry": ({"a": 7}, 0),
    "metadata that is no text": ({"__metadata__": {"a": {"b": 1}}}, 0),
    "metadata that is a list": ({"__metadata__": []}, 0),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_with_a_fault_is_refused(adapter: Path, name: str) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(tensor_bytes(*BAD_HEADERS[name]))
    assert "adapter_model.safetensors` is not a whole safetensors file" in refused(adapter)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 8,
        (1 << 62).to_bytes(8, "little") + bytes(100),
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (4).to_bytes(8, "little") + b"\xff\xfe\x00\x00",
        (37).to_bytes(8, "little") + b'{"__metadata__":{},"__metadata__":{}}',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (4).to_bytes(8, "little") + "{}".encode("utf-16-le"),
        (4301 + 5).to_bytes(8, "little") + b'{"a":' + b"9" * 4300 + b"}",
    ],
)
def test_bytes_that_are_no_header_are_refused(raw: bytes) -> None:
    with pytest.raises(DamagedTensorsError):
        read_tensors(BytesIO(raw), len(raw))


WIDTH = {"F32": 4, "BF16": 2, "I8": 1, "BOOL": 1}
layouts = st.dictionaries(
    st.text(max_size=6).filter(lambda name: name != "__metadata__"),
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(sorted(WIDTH))),
    max_size=5,
)


@settings(deadline=None)
@given(layouts, st.data())
def test_any_layout_is_read_back_and_any_changed_byte_is_read_or_refused(
    shapes: dict[str, tuple[list[int], str]], data: st.DataObject
) -> None:
    header: dict[str, Any] = {}
    wanted: dict[str, Tensor] = {}
    end = 0
    for name, (shape, dtype) in shapes.items():
        size = WIDTH[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        wanted[name] = Tensor(dtype, tuple(shape), end, end + size)
        end += size
    raw = tensor_bytes(header, end)
    assert read_tensors(BytesIO(raw), len(raw)) == wanted
    changed = bytearray(raw)
    position = data.draw(st.integers(0, len(raw) - 1))
    changed[position] = data.draw(st.integers(0, 255))
    try:
        tensors = read_tensors(BytesIO(bytes(changed)), len(changed))
    except DamagedTensorsError:
        return
    assert max((tensor.end for tensor in tensors.values()), default=0) <= len(changed)
    if safetensors is not None:
        safetensors.deserialize(bytes(changed))  # what passes here, the library reads as well


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(WHOLE[:-1])
@example(WHOLE + b"x")
@example(tensor_bytes({"\ud800": entry(0, 4)}, 4))
def test_any_other_bytes_are_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(DamagedTensorsError):
        read_tensors(BytesIO(raw), len(raw))


def test_a_header_of_many_parts_stays_within_the_memory(tmp_path: Path) -> None:
    raw = b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"
    (tmp_path / "a.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
    tracemalloc.start()
    try:
        with pytest.raises(JobError):
            read_job_tensors(tmp_path, "a.safetensors")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
