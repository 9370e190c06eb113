"""A run that has reached step `code` of loop 0: splits on disk, records in a journal, a tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

from container_double import ContainerDouble

from rdagent_ft.data.rows import DatasetSource, Message, ModelSource, ReadReport, Row, SplitName, make_row
from rdagent_ft.data.write import write_rows
from rdagent_ft.engine.bounds import Clock
from rdagent_ft.engine.context import RunContext, RunRequest
from rdagent_ft.engine.faults import Faults
from rdagent_ft.engine.journal import Journal, utc_now
from rdagent_ft.engine.progress import Silent
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import SETUP_LOOP, PrepareOutput, ProposeOutput, SplitInfo
from rdagent_ft.settings import Settings

WORDS = [f"word{n}" for n in range(500)]
N_TRAIN = 60


def item(number: int, source: str = "clean") -> Row:
    """Return the item of a number: a prompt of 15 words, a short answer."""
    prompt = " ".join(random.Random(number).choices(WORDS, k=15))
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=f"answer {number}"))
    return make_row(turns, source=source)


SPLITS: dict[SplitName, list[Row]] = {
    "train": [item(n, "noisy" if n % 3 == 0 else "clean") for n in range(N_TRAIN)],
    "dev": [item(n) for n in range(1000, 1020)],
    "val": [item(n) for n in range(2000, 2020)],
    "test": [item(n) for n in range(3000, 3020)],
}


def write_model(folder: Path) -> Path:
    """Write what the code step reads of a base model: sizes and a tokenizer with an end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    )
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64,
        "vocab_size": 400, "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def prepared(model: Path, **changes: Any) -> PrepareOutput:
    """Return what the prepare step would have recorded."""
    infos = {name: SplitInfo(n_items=len(rows), sha256="0" * 64) for name, rows in SPLITS.items()}
    values: dict[str, Any] = {
        "dataset": DatasetSource(name="d", kind="local", revision="0", files=()),
        "read": ReadReport(format="messages", mapping={}, columns=(), n_read=120, n_rows=120),
        "model": ModelSource(
            name="m", path=str(model), revision="0", fingerprint="0", architecture="Qwen3ForCausalLM",
            n_params=50_000, max_positions=512, vocab_size=400, has_chat_template=False,
        ),
        "splits": infos, "n_near_duplicate_groups": 0, "target_benchmark": "heldout",
        "reported_benchmarks": (), "scorer": "exact_match", "scorer_reason": "short answers",
        "prompt_format": "plain", "max_new_tokens": 16, "token_percentiles": {"p99": 60, "max": 60},
        "sources": {"clean": 40, "noisy": 20}, "data_facts": (), "model_facts": (), "machine_facts": (),
        "device": "cpu",
    }  # fmt: skip
    return PrepareOutput.model_validate({**values, **changes})


def at_code_step(
    root: Path, recipe: Recipe, container: ContainerDouble, *, changes: dict[str, Any] | None = None,
    **settings: Any,
) -> RunContext:  # fmt: skip
    """Return the context of a run whose loop 0 proposed `recipe`."""
    run_dir = root / "output" / "r"
    run_dir.mkdir(parents=True)
    for name, rows in SPLITS.items():
        write_rows(run_dir / "data" / f"{name}.jsonl", rows)
    journal = Journal.create(run_dir, {"run_id": "r"})
    proposal = ProposeOutput(
        planner="llm", parent=None, recipe=recipe, recipe_hash=recipe.hash, hypothesis="h", prediction="p"
    )
    for loop, step, output in (
        (SETUP_LOOP, "prepare", prepared(write_model(root / "model"), **(changes or {}))),
        (0, "propose", proposal),
    ):
        journal.finish_step(loop, cast("Any", step), output, started_utc=utc_now(), wall_s=0.1)
    values = {"file_path": root, "executor": "docker", "debug_timeout": 60.0, **settings}
    return RunContext(
        run_id="r", run_dir=run_dir, request=RunRequest(dataset="d", recipe=recipe),
        settings=Settings.model_validate(values), journal=journal, executor=container,
        harness=cast("Any", None), planner=cast("Any", None), llm=None, clock=Clock(None),
        faults=Faults(None), progress=Silent(),
    )  # fmt: skip
