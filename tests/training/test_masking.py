"""Which tokens TRL really trains, token by token, for configs as we render them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.execution.port import JobResult
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import read_failure, stage_argv

pytestmark = pytest.mark.train

MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "user", "content": "What is red?"},
    {"role": "assistant", "content": "A colour."},
    {"role": "user", "content": "And a cat?"},
    {"role": "assistant", "content": "An animal."},
]
# The families whose template TRL can turn into one that marks the assistant's turns.
PATCHED = ("llama3", "qwen2_5", "qwen3", "gemma", "gemma3", "phi3")
SHOW_LABELS = """
import json, sys
from datasets import Dataset
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, get_peft_config
from trl.scripts.utils import DatasetMixtureConfig
from transformers import AutoTokenizer
import trl
from pathlib import Path

shipped = Path(trl.__file__).parent / "chat_templates"
for case in json.load(sys.stdin):
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    _, args, model, data = parser.parse_args_and_config(["--config", case["config"]])
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
    if case["template"]:
        text = case["template"]
        tokenizer.chat_template = (shipped / text).read_text() if text.endswith(".jinja") else text
    rows = [json.loads(line) for line in open(data.datasets[0].data_files)]
    trainer = SFTTrainer(
        model=model.model_name_or_path, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, peft_config=get_peft_config(model),
    )
    (batch,) = list(trainer.get_train_dataloader())
    out = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"]):
        kept = [(int(i), int(l)) for i, l, m in zip(ids, labels, mask) if m]
        assert all(l in (-100, i) for i, l in kept)
        assert all(int(l) == -100 for l, m in zip(labels, mask) if not m)
        runs, before = [], False
        for token, label in kept:
            trained = label != -100
            if trained and not before:
                runs.append([])
            if trained:
                runs[-1].append(token)
            before = trained
        text, trained = tokenizer.decode([i for i, _ in kept]), [tokenizer.decode(run) for run in runs]
        out.append({"text": text, "trained": trained})
    print("LABELS " + json.dumps({"name": case["name"], "rows": out}))
"""


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model whose ChatML template has no generation markers."""
    from rdagent_ft.training.tiny import make_tiny_model

    folder = tmp_path_factory.mktemp("masking") / "chat"
    texts = [message["content"] for message in TALK] * 8
    make_tiny_model(folder, texts, vocab_size=300, hidden=16, heads=2, max_positions=512, chat=True)
    return folder


def write_config(folder: Path, model: Path, rows: list[dict[str, Any]], stage: dict[str, Any]) -> Path:
    """Write rows and the config that we render for one SFT stage over them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = StagePaths(model=model, train_file=folder / "rows.jsonl", output_dir=folder / "output")
    recipe = Recipe.model_validate(
        {"stages": [{"kind": "sft", "effective_batch": 4, "micro_batch": 4, "max_steps": 1, **stage}]}
    )
    text = render_stage(recipe, 0, paths=paths, facts=RenderFacts(device="cpu")).text
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def labels(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The text and the trained runs of tokens of every case, from TRL's own data loader in one process."""
    folder = tmp_path_factory.mktemp("labels")
    single = [
        {"prompt": "Colour red?", "completion": " yes"},
        {"prompt": "Colour green? A longer one.", "completion": " no, never"},
    ]
    turns = {"train_on": "assistant_turns"}
    talk = [{"messages": TALK}]
    cases: list[tuple[str, list[dict[str, Any]], dict[str, Any], str]] = [
        ("single", single, {}, ""),
        ("single-chat", [{"prompt": TALK[:3], "completion": TALK[3:]}], {}, ""),
        ("cut", single, {"max_length": 24}, ""),
        ("marked", talk, turns, MARKED),
        *((name, talk, turns, f"{name}.jinja") for name in PATCHED),
    ]
    asked = [
        {
            "name": name,
            "template": template,
            "config": str(write_config(folder / name, chat_model, rows, stage)),
        }
        for name, rows, stage, template in cases
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHOW_LABELS],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [
        json.loads(line.removeprefix("LABELS "))
        for line in done.stdout.splitlines()
        if line.startswith("LABELS ")
    ]
    return {entry["name"]: entry["rows"] for entry in found}


def test_single_turn_rows_train_the_completion_and_its_end_only(labels: Any) -> None:
    by_text = {row["text"]: row["trained"] for row in labels["single"]}
    assert by_text == {
        "Colour red? yes<|im_end|>": [" yes<|im_end|>"],
        "Colour green? A longer one. no, never<|im_end|>": [" no, never<|im_end|>"],
    }


def test_a_conversation_as_prompt_trains_its_last_answer_only(labels: Any) -> None:
    (row,) = labels["single-chat"]
    assert "A colour.<|im_end|>" in row["text"]
    assert [part.strip() for part in row["trained"]] == ["An animal.<|im_end|>"]


def test_a_cut_row_never_trains_its_prompt(labels: Any) -> None:
    for row in labels["cut"]:
        assert len(row["trained"]) == 1
        assert row["trained"][0] in (" yes<|im_end|>", " no, never<|im_end|>"[: len(row["trained"][0])])


@pytest.mark.parametrize("template", ["marked", *PATCHED])
def test_conversations_train_the_assistants_turns_only(template: str, labels: Any) -> None:
    (row,) = labels[template]
    trained = row["trained"]
    assert "What is red?" in row["text"]
    assert len(trained) == 2
    for part, answer in zip(trained, ("A colour.", "An animal."), strict=True):
        assert answer in part
        assert "What" not in part
        assert "And a cat?" not in part
        # Behind the answer comes what ends the turn, and nothing of the next one.
        assert re.search(r"(<\|(im_end|eot_id|end)\|>|<end_of_turn>)", part.split(answer)[1])
        assert "user" not in part


def test_a_template_without_markers_is_refused_with_its_class(chat_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, chat_model, [{"messages": TALK}], {"train_on": "assistant_turns"})
    done = subprocess.run(
        [sys.executable, *stage_argv("sft", config)[1:]],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode != 0
    assert not (tmp_path / "adapter").exists()
    result = JobResult(
        failure_class="candidate", reason="exit", exit_code=done.returncode, started_unix=0.0, ended_unix=1.0
    )
    failure = classify(done.stdout + done.stderr, result=result, failure_json=read_failure(tmp_path))
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("data.template_mask", "candidate")
