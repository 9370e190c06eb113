# pyright: basic
"""What is checked before and around a LLaMA-Factory training: prompts as served, tokens as trained.

The trainer renders prompts with templates of its own and changes the tokenizer while it loads; a model
trained that way and served with its own chat template would meet prompts that it never saw.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rdagent_ft.training.job_files import fail, read_rows

N_COMPARED = 3
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip


def load_tokenizer(folder: Path) -> Any:
    """Return the model's own tokenizer, as it is served with."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Replace the tokenizer files of `target`, which the trainer changed, by the model's own."""
    for name in (*TOKENIZER_FILES, "Modelfile", "additional_chat_templates"):
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def check_prompts(
    config: dict[str, Any], own: Any, failure: Path, prompts_check: Path | None
) -> dict[str, Any]:
    """Compare tokens of prompts as the trainer renders them with those that the served model meets.

    Ends the job when they differ, or when the trainer's template needs tokens that the model lacks.
    """
    from llamafactory.data import get_template_and_fix_tokenizer  # pyright: ignore[reportMissingImports]
    from llamafactory.hparams import get_train_args  # pyright: ignore[reportMissingImports]
    from llamafactory.model import load_tokenizer as load_changed  # pyright: ignore[reportMissingImports]

    model_args, data_args, _, _, _ = get_train_args(dict(config))
    changed = load_changed(model_args)["tokenizer"]
    template = get_template_and_fix_tokenizer(changed, data_args)
    name = config.get("template")
    if len(changed) > len(own):
        fail(failure, "data.template", f"the template {name} needs {len(changed) - len(own)} tokens more")
    rows = _served_prompts(config, own, prompts_check)
    for number, (messages, wanted) in enumerate(rows):
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns = messages[1:] if system is not None else messages
        answer = {"role": "assistant", "content": "."}
        rendered, _ = template.encode_oneturn(changed, [*turns, answer], system)
        if rendered != wanted:
            fail(
                failure,
                "data.template",
                f"the template {name} renders prompt {number} differently: {own.decode(rendered)[:200]!r}",
                expected=own.decode(wanted)[:200],
            )
    return {"n_prompts_checked": len(rows)}


def n_data_rows(config: dict[str, Any]) -> int:
    """Return the number of rows in the training file."""
    return len(read_rows(_data_file(config), ()))


def _data_file(config: dict[str, Any]) -> Path:
    folder = Path(config["dataset_dir"])
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    return folder / info[config["dataset"]]["file_name"]


def _served_prompts(
    config: dict[str, Any], own: Any, prompts_check: Path | None
) -> list[tuple[list[dict[str, str]], list[int]]]:
    """Return up to three prompts: turns, and the token ids that a served model would get for them."""
    if prompts_check is not None:
        rows = read_rows(prompts_check, ("messages", "text"))[:N_COMPARED]
        special = config.get("template") == "empty"
        found = [(row["messages"], own(row["text"], add_special_tokens=special)["input_ids"]) for row in rows]
        return [(_one_text(turns, ids, own) if special else turns, ids) for turns, ids in found]
    rows = read_rows(_data_file(config), ("messages", "prompt"))[:N_COMPARED]
    return [_served(row, own) for row in rows]


def _served(row: dict[str, Any], own: Any) -> tuple[list[dict[str, str]], list[int]]:
    if "prompt" in row:  # plain text; the file carries the beginning token as text
        text = row["prompt"].removeprefix(own.bos_token or "")
        return [{"role": "user", "content": row["prompt"]}], own(text)["input_ids"]
    turns = row["messages"]
    turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    text = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return turns, own(text, add_special_tokens=False)["input_ids"]


def _one_text(turns: list[dict[str, str]], ids: list[int], own: Any) -> list[dict[str, str]]:
    """Return a plain prompt as the data file has it: one text, with the beginning token in front."""
    return [{"role": "user", "content": own.decode(ids, skip_special_tokens=False)}]


def check_tokens(dataset: Any, ends: set[int], stage: str, n_rows: int, failure: Path) -> dict[str, Any]:
    """Count what the tokenised rows train. Ends the job when no token, or no end token, is trained."""
    if stage == "rm":  # the whole text is scored
        return {
            "n_rows": n_rows,
            "n_rows_trained": len(dataset),
            "share_tokens_trained": None,
            "share_rows_with_end": None,
        }
    column = "chosen_labels" if stage == "dpo" else "labels"
    n_tokens = n_trained = n_with_end = 0
    for batch in dataset.select_columns([column]).iter(batch_size=1000):
        for labels in batch[column]:
            trained = [token for token in labels if token != -100]
            n_tokens += len(labels)
            n_trained += len(trained)
            n_with_end += not ends.isdisjoint(trained)
    checks = {
        "n_rows": n_rows,
        "n_rows_trained": len(dataset),
        "share_tokens_trained": round(n_trained / max(1, n_tokens), 6),
        "share_rows_with_end": round(n_with_end / max(1, len(dataset)), 6),
    }
    if n_trained == 0:
        fail(failure, "data.empty_after_filter", "no token is trained: all labels are masked", **checks)
    if n_with_end == 0:
        fail(failure, "data.eos", "no row trains the end token: the model would never stop", **checks)
    return checks
