"""`rdagent-ft merge` and `rdagent-ft export` on a tiny model that TRL really trained."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_run import bind_run, change, plain_weights, read

from rdagent_ft.cli.main import main
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.reporting.export_manifest import MANIFEST_NAME
from rdagent_ft.training.plan import merge_argv, stage_argv, tiny_argv
from rdagent_ft.values import sha256_file

pytestmark = pytest.mark.train
CONVERTER = """
import sys, pathlib, json
import beside  # llama.cpp's converter has modules beside it
model, flag, out, kind_flag, kind = sys.argv[1:]
assert (flag, kind_flag) == ("--outfile", "--outtype") and kind == "bf16", sys.argv
assert json.loads((pathlib.Path(model) / "config.json").read_text())["dtype"] == "float32"
head = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little")
pathlib.Path(out).write_bytes(head + bytes(64) if beside.WORKS else b"nothing")
"""
Call = Callable[..., tuple[int, str, str]]


def run_job(folder: Path, argv: tuple[str, ...]) -> None:
    executor = LocalExecutor(grace_s=2.0)
    spec = JobSpec(
        attempt_id="job-1", kind="train", argv=argv, out_dir=folder, env={"OMP_NUM_THREADS": "1"},
        deadline_unix=time.time() + 300,
    )  # fmt: skip
    handle = executor.submit(spec)
    while executor.poll(handle).state == "running":
        time.sleep(0.05)
    result = executor.collect(handle)
    assert result.failure_class == "ok", result.log_tail


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` (a chat model), `adapter` (trained by TRL) and `merged`."""
    folder = tmp_path_factory.mktemp("models")
    rows = [{"prompt": f"Colour {n % 7}?", "completion": f" It is {n % 3}."} for n in range(64)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [{"text": row["prompt"] + row["completion"]} for row in rows]
    (folder / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    spec = {
        "out": "base",
        "texts": str(folder / "texts.jsonl"),
        "vocab_size": 300,
        "hidden": 32,
        "chat": True,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    run_job(folder, tiny_argv(folder / "spec.json"))
    config = {
        "model_name_or_path": str(folder / "base"), "output_dir": "trainer", "use_peft": True, "lora_r": 4,
        "datasets": [{"path": "json", "data_files": str(folder / "train.jsonl")}], "lora_alpha": 8,
        "lora_target_modules": ["all-linear"], "learning_rate": 1e-2, "max_steps": 6, "max_length": 64,
        "per_device_train_batch_size": 8, "logging_steps": 1, "save_strategy": "no", "bf16": False,
        "use_cpu": True, "dtype": "float32", "report_to": "none", "disable_tqdm": True,
        "gradient_checkpointing": False,
    }  # fmt: skip
    (folder / "sft").mkdir()
    (folder / "sft" / "config.yaml").write_text(json.dumps(config))
    run_job(folder / "sft", stage_argv("sft", folder / "sft" / "config.yaml"))
    (folder / "sft" / "adapter").rename(folder / "adapter")
    merge = merge_argv(folder / "base", Path("merged"), adapter=folder / "adapter")
    run_job(folder / "merge", merge)
    (folder / "merge" / "merged").rename(folder / "merged")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*argv: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(part) for part in argv])
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_merge_writes_a_model_that_answers_alike(models: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "new" / "merged"
    code, shown, err = call("merge", "--base", models / "base", "--adapter", models / "adapter", "--out", out)
    assert (code, err) == (0, "")
    assert re.match(
        r"merged in fp32, logits differ by at most \d\.\de-\d+ on 8 prompts; stored as float32", shown
    )
    assert (out / "model.safetensors").read_bytes() == (models / "merged/model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() != (models / "base/model.safetensors").read_bytes()
    assert (out / "chat_template.jinja").read_text() == (models / "base/chat_template.jinja").read_text()
    assert "rope_theta" in json.loads((out / "config.json").read_text())
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    again, _, err = call("merge", "--base", models / "base", "--adapter", models / "adapter", "--out", out)
    assert again == 2
    assert "exists" in err


def test_merge_stores_in_16_bits_what_it_proved_in_32(models: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "merged"
    options = (
        "--base",
        models / "base",
        "--adapter",
        models / "adapter",
        "--out",
        out,
        "--dtype",
        "bfloat16",
    )
    code, shown, err = call("merge", *options)
    assert code == 0, err
    assert "stored as bfloat16" in shown
    assert n_bytes(out) < 0.55 * n_bytes(models / "merged")
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


def copied(source: Path, target: Path, **changes: Any) -> Path:
    """Copy a folder; `changes` are keys of its config."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for name in ("config.json", "adapter_config.json"):
        if (target / name).is_file():
            config = json.loads((target / name).read_text())
            (target / name).write_text(json.dumps({**config, **changes}))
    return target


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("no base", "is no folder"),
        ("base is an adapter", "is no model but an adapter"),
        ("adapter is a model", "is no adapter but a whole model"),
        ("quantised", "is quantised"),
        ("pickled", "its adapter_model.bin is a pickle"),
        ("other kind", "is of the type 'IA3'"),
        ("other base", "the adapter does not fit the base"),
        ("out inside", "lies inside --base"),
        ("cut weights", "is not a whole safetensors file"),
        ("damaged config", "cannot be read"),
    ],
)
def test_each_mistake_is_one_message_before_anything_runs(
    models: Path, tmp_path: Path, call: Call, mistake: str, words: str
) -> None:
    base, adapter, out = models / "base", models / "adapter", tmp_path / "out"
    match mistake:
        case "no base":
            base = tmp_path / "absent"
        case "base is an adapter":
            base = adapter
        case "adapter is a model":
            adapter = base
        case "quantised":
            base = copied(base, tmp_path / "q", quantization_config={"load_in_4bit": True})
        case "pickled":
            adapter = copied(adapter, tmp_path / "p")
            (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
        case "other kind":
            adapter = copied(adapter, tmp_path / "p", peft_type="IA3")
        case "other base":
            spec = {"out": "other", "texts": str(models / "texts.jsonl"), "vocab_size": 300, "hidden": 48}
            (tmp_path / "spec.json").write_text(json.dumps(spec))
            run_job(tmp_path, tiny_argv(tmp_path / "spec.json"))
            base = tmp_path / "other"
        case "out inside":
            out = copied(base, tmp_path / "b") / "out"
            base = out.parent
        case "cut weights":
            adapter = copied(adapter, tmp_path / "p")
            weights = adapter / "adapter_model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-8])
        case _:
            adapter = copied(adapter, tmp_path / "p")
            (adapter / "adapter_config.json").write_text("{")
    code, shown, err = call("merge", "--base", base, "--adapter", adapter, "--out", out)
    assert (code, shown) == (2, "")
    assert err.count("error: ") == 1
    assert words in err
    assert not out.exists()


@pytest.fixture
def run_dir(models: Path, tmp_path: Path) -> Path:
    found = bind_run(tmp_path / "output", models / "base", models / "adapter", models / "merged")
    prepare = read(found, -1, "prepare")
    model = {**prepare["model"], "has_chat_template": True}
    change(found, -1, "prepare", {"prompt_format": "chat", "model": model})
    return found


def test_all_makes_what_the_machine_can_and_says_what_it_cannot(
    models: Path, run_dir: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, shown, err = call("export", run_dir)
    assert code == 0, err
    left_out = [line for line in err.splitlines() if ": left out: " in line]
    assert [line.split(":")[0] for line in left_out] == ["merged_4bit", "gguf"]
    assert "bitsandbytes and a CUDA GPU" in left_out[0]
    assert "set FT_LLAMA_CPP to its folder" in left_out[1]
    formats = run_dir / "formats"
    assert sorted(path.name for path in formats.iterdir()) == ["adapter", "merged_16bit"]
    half = formats / "merged_16bit"
    assert n_bytes(half) < 0.55 * n_bytes(models / "merged")
    assert re.search(r"Weights are stored as bfloat16: [\d.]+ MiB became [\d.]+ MiB\. On 8 prompts", shown)
    assert (half / "chat_template.jinja").is_file()
    config = json.loads((formats / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    for name in ("adapter", "merged_16bit"):
        manifest = json.loads((formats / name / MANIFEST_NAME).read_text())
        assert manifest["form"] == name
        listed = {file["path"]: file["sha256"] for file in manifest["files"]}
        on_disk = {path.name: sha256_file(path) for path in (formats / name).iterdir()}
        assert listed == {k: v for k, v in on_disk.items() if k not in {MANIFEST_NAME, "README.md"}}
        for path in (formats / name).iterdir():
            assert str(models).encode() not in path.read_bytes(), path.name
    again, shown, _ = call("export", run_dir, "--format", "merged_16bit")
    assert again == 0
    assert "was there already" in shown


def test_gguf_with_a_converter_and_a_modelfile(
    run_dir: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_cpp = tmp_path / "llama.cpp"
    llama_cpp.mkdir()
    (llama_cpp / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (llama_cpp / "beside.py").write_text("WORKS = False\n")
    monkeypatch.setenv("FT_LLAMA_CPP", str(llama_cpp))
    options = (run_dir, "--format", "gguf", "--gguf-type", "bf16", "--out", tmp_path / "out", "--json")
    code, shown, err = call("export", *options)
    assert (code, shown) == (1, "")
    assert "the converter left no GGUF model" in err
    (llama_cpp / "beside.py").write_text("WORKS = True\n")
    code, shown, err = call("export", *options)
    assert code == 0, err
    (export,) = json.loads(shown)["exports"]
    folder = tmp_path / "out" / "gguf"
    assert (export["folder"], export["dtype"]) == (str(folder), "bf16")
    assert sorted(path.name for path in folder.iterdir()) == [
        "Modelfile", "README.md", MANIFEST_NAME, "model-bf16.gguf",
    ]  # fmt: skip
    lines = (folder / "Modelfile").read_text()
    assert "FROM ./model-bf16.gguf" in lines
    assert "<|im_start|>assistant" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "ollama create base-tuned -f Modelfile" in (folder / "README.md").read_text()


@pytest.mark.parametrize("fault", ["merged", "adapter"])
def test_a_changed_model_is_not_exported(run_dir: Path, call: Call, fault: str) -> None:
    weights = next((run_dir / "export" / fault).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    code, _, err = call("export", run_dir, "--format", "adapter")
    assert code == 8
    assert "export/" in err
    assert not (run_dir / "formats").exists()


def test_a_taken_folder_is_left_alone(run_dir: Path, call: Call) -> None:
    (run_dir / "formats" / "adapter").mkdir(parents=True)
    (run_dir / "formats" / "adapter" / "mine.txt").write_text("mine")
    code, _, err = call("export", run_dir, "--format", "adapter")
    assert code == 2
    assert "exists and is not this export" in err
    assert (run_dir / "formats/adapter/mine.txt").read_text() == "mine"


def test_full_weights_have_no_adapter_to_export(models: Path, tmp_path: Path, call: Call) -> None:
    run_dir = bind_run(tmp_path / "output", models / "base", None, models / "merged")
    code, _, err = call("export", run_dir, "--format", "adapter")
    assert code == 2
    assert "there is no adapter" in err


def test_a_run_that_has_not_ended_has_nothing_to_export(tmp_path: Path, call: Call) -> None:
    base = tmp_path / "base"
    adapter, merged = plain_weights(tmp_path / "weights", base)
    run_dir = bind_run(tmp_path / "output", base, adapter, merged)
    change(run_dir, 6, "feedback", {"new_parent": False})
    code, _, err = call("export", run_dir)
    assert code == 2
    assert "has handed over no model: loop 2 was not exported" in err
