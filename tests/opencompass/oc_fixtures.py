"""Requests, items and a tokenizer for the tests of the OpenCompass harness; all of it made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rdagent_ft.data.rows import SplitName
from rdagent_ft.evaluation.items import EvalItem, Turn
from rdagent_ft.evaluation.opencompass.spec import (
    Endpoint,
    OpenCompassRequest,
    OpenCompassTask,
    ShortName,
)
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import ScorerName

AWKWARD = (
    "Fill {item_id}, {idx}, {subdivision}, {messages} and {{ fileDirname }}.\r\nDone\u2028 'really' \\n?"
)
"""Everything that a template engine, a config parser or a line reader might change."""


def write_tokenizer(folder: Path) -> Path:
    """Write a byte-level tokenizer whose settings try to bring code along."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": [None, "evil.EvilTokenizer"]},
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    marker = folder / "it_ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass EvilTokenizer: pass\n")
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def own_items(n: int) -> list[EvalItem]:
    """Sums, one of them as a conversation and one with text that must not be touched."""
    items = [
        EvalItem(item_id=f"item{a:04d}", prompt=f"What is {a} plus 1?", gold=str(a + 1)) for a in range(n)
    ]
    turns = (
        Turn(role="system", content="You add."),
        Turn(role="user", content="What is 1 plus 1?"),
        Turn(role="assistant", content="2"),
        Turn(role="user", content="And 1 plus 1 again?"),
    )
    items[1] = items[1].model_copy(update={"messages": turns, "prompt": "rendered"})
    if n > 2:
        items[2] = items[2].model_copy(update={"prompt": AWKWARD})
    return items


def make_task(
    folder: Path,
    items: list[EvalItem],
    *,
    benchmark: str = "heldout",
    split: SplitName = "val",
    documented: ShortName | None = None,
    records: list[dict[str, Any]] | None = None,
    scorer: ScorerName = "numeric_match",
    max_new_tokens: int = 64,
    repeats: int = 1,
    temperature: float = 0.0,
) -> OpenCompassTask:
    items_file = write_lines(
        folder / f"{benchmark}-{split}.jsonl", [item.model_dump(mode="json") for item in items]
    )
    records_file = None
    if records is not None:
        records_file = write_lines(folder / f"{benchmark}-{split}-records.jsonl", records)
    task = EvalTask(
        benchmark=benchmark,
        split=split,
        items_file=items_file,
        n_items=len(items),
        scorer=scorer,
        max_new_tokens=max_new_tokens,
        repeats=repeats,
        temperature=temperature,
    )
    return OpenCompassTask(task=task, documented=documented, records_file=records_file)


def make_request(
    folder: Path, *tasks: OpenCompassTask, base_url: str = "http://127.0.0.1:1/v1", **changes: Any
) -> OpenCompassRequest:
    endpoint: dict[str, Any] = {
        "role": "base",
        "served_name": "cand",
        "fingerprint": "ab" * 16,
        "base_url": base_url,
        "tokenizer_dir": write_tokenizer(folder / "tokenizer"),
        "context_tokens": 8192,
        **changes.pop("endpoint", {}),
    }
    return OpenCompassRequest(endpoint=Endpoint(**endpoint), tasks=tasks, **changes)
