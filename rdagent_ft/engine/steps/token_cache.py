"""Tokens of a training file, kept between loops and runs: rows that are tokenised once stay tokenised.

One folder an entry under FT_FILE_PATH/cache/tokens, named by what decides the ids: the training file, the
tokenizer's files, the prompt format and the versions. The length is no part of it: whole rows are kept.
A job leaves tokens as hostile output; they count only when every number is in bounds and rows that the job
could not foresee have the ids that this process gets for them. `key.json` of an entry stays when its
tokens are removed: a job of a resumed run may be given the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.tokens import PLAIN_PROMPT_END, PromptFormat, TextEncoder
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import n_devices
from rdagent_ft.engine.steps.stage_data import StageData
from rdagent_ft.errors import JobError, RdagentFtError
from rdagent_ft.execution.carry import copy_file_inside
from rdagent_ft.execution.image_pins import shipped_pins
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.recipe.stages import AnyTrainedStage, SftStage
from rdagent_ft.training.token_files import (
    CACHE_FOLDER,
    LEFT_NAME,
    MAX_FILE_BYTES,
    DamagedTokensError,
    Tokens,
    read_tokens,
)
from rdagent_ft.values import Frozen, content_hash, sha256_file, write_json

MIN_ROWS = 1_000
"""Fewer rows are tokenised in about a second, and less is not worth an entry."""
MAX_CACHE_BYTES = 20 << 30
N_CHECKED = 64
"""Rows that are tokenised here: an entry with one wrong row in ten passes once in 850 times."""
_KEY, _ENTRY, _STAGING = "key.json", "entry.json", ".staging-"
_STAGING_MAX_AGE_S = 86_400.0
_PACKAGES = ("trl", "transformers", "tokenizers")
_TOKENIZER_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


class TokenEntry(Frozen):
    """What makes an entry count (`entry.json`, written last): its key and the hash of its tokens."""

    schema_version: Literal[1] = 1
    key: str
    sha256: str
    n_rows: int
    n_tokens: int


def token_folder(ctx: RunContext, stage: AnyTrainedStage, data: StageData, model: Path) -> Path | None:
    """Return the folder that the stage's job is given; tokens lie in it when they were kept and are whole.

    None where none are shared: another kind of stage or trainer, conversations whose turns the trainer's
    template picks, few rows, or several processes (not tested). A damaged entry is named and removed.
    """
    if not isinstance(stage, SftStage) or stage.train_on != "last_turn":
        return None
    if ctx.settings.trainer != "trl" or data.n_rows < MIN_ROWS or n_devices(ctx) > 1:
        return None
    covers = {
        "schema_version": 1,
        "rows": sha256_file(data.file),
        "tokenizer": {
            name: sha256_file(model / name) for name in _TOKENIZER_FILES if (model / name).is_file()
        },
        "prompt_format": ctx.prepared.prompt_format,
        "train_on": stage.train_on,
        "versions": _versions(ctx),
    }
    key = content_hash(covers, n_chars=64)
    folder = cache_root(ctx.settings.file_path) / key
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _KEY).exists():
        write_json(folder / _KEY, covers)
    inner = folder / CACHE_FOLDER
    if not inner.exists():
        return folder
    try:
        _check_entry(inner, key, data.n_rows)
        os.utime(inner / _ENTRY)
    except (JobError, ValidationError, DamagedTokensError, OSError) as error:
        ctx.progress.notice(f"stored tokens {key[:12]} are damaged and are made anew: {_words(error)}")
        shutil.rmtree(inner, ignore_errors=True)
    return folder


def keep_tokens(ctx: RunContext, folder: Path, out_dir: Path, data: StageData) -> None:
    """Move the tokens that a job left into the entry, when they can be trusted; else say why not.

    The job's file is removed in any case. Says nothing when the job left none: it used the entry's.
    """
    if not os.path.lexists(out_dir / LEFT_NAME):
        return
    inner, staging = folder / CACHE_FOLDER, folder.with_name(f"{_STAGING}{folder.name}-{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        carried = copy_file_inside(out_dir, LEFT_NAME, staging / LEFT_NAME, max_bytes=MAX_FILE_BYTES)
        tokens = check_tokens(staging / LEFT_NAME, data, ctx.text_encoder, ctx.prepared.prompt_format)
        entry = TokenEntry(
            key=folder.name, sha256=carried.sha256, n_rows=tokens.n_rows, n_tokens=int(tokens.ids.size)
        )
        write_json(staging / _ENTRY, entry.model_dump(mode="json"))
        # Replaced as a whole. Where two runs made the same entry at once, the second one's is dropped.
        shutil.rmtree(inner, ignore_errors=True)
        staging.rename(inner)
        prune_tokens(folder.parent, MAX_CACHE_BYTES)
    except (RdagentFtError, DamagedTokensError, OSError) as error:
        ctx.progress.notice(f"the tokens that the job left are not kept: {_words(error)}")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_left(out_dir)


def check_tokens(path: Path, data: StageData, encoder: TextEncoder, prompt_format: PromptFormat) -> Tokens:
    """Return the tokens of a file when they are those of the training file, as far as is looked.

    Every number is checked to be in bounds; up to 64 rows, drawn anew each time, are tokenised here and
    compared. Raises `DamagedTokensError`.
    """
    tokens = read_tokens(path, n_rows=data.n_rows, vocab_size=encoder.tokenizer.get_vocab_size())
    numbers = sorted(random.SystemRandom().sample(range(data.n_rows), min(N_CHECKED, data.n_rows)))
    rows = [_row(record, prompt_format) for record in _records(data.file, numbers)]
    for number, (n_context, _, ids) in zip(numbers, encoder.row_token_ids(rows, prompt_format), strict=True):
        begin, end = int(tokens.offsets[number]), int(tokens.offsets[number + 1])
        if tokens.ids[begin:end].tolist() != ids:
            raise DamagedTokensError(f"row {number} has other tokens than its text")
        if int(tokens.starts[number]) != n_context:
            raise DamagedTokensError(f"the trained part of row {number} begins elsewhere")
    return tokens


def prune_tokens(root: Path, max_bytes: int) -> list[str]:
    """Remove the tokens that were used longest ago until at most `max_bytes` are left; return their keys."""
    for left in root.glob(f"{_STAGING}*"):  # of a process that was killed
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STAGING_MAX_AGE_S:
                shutil.rmtree(left, ignore_errors=True)
    found: list[tuple[float, int, Path]] = []
    for inner in sorted(root.glob(f"*/{CACHE_FOLDER}")):
        try:
            used = (inner / _ENTRY).stat().st_mtime
            n_bytes = sum(path.stat().st_size for path in inner.iterdir())
        except OSError:  # removed, or replaced, a moment ago
            continue
        found.append((used, n_bytes, inner))
    held, removed = sum(n_bytes for _, n_bytes, _ in found), list[str]()
    for _, n_bytes, inner in sorted(found):
        if held <= max_bytes:
            break
        shutil.rmtree(inner, ignore_errors=True)
        removed.append(inner.parent.name)
        held -= n_bytes
    return removed


def cache_root(file_path: Path) -> Path:
    """Return the folder of all entries below FT_FILE_PATH."""
    return file_path.absolute() / "cache" / "tokens"


def _check_entry(inner: Path, key: str, n_rows: int) -> None:
    entry = TokenEntry.model_validate(read_json_file(inner, _ENTRY, 1 << 16))
    if entry.key != key:
        raise JobError(f"it is the entry of {entry.key[:12]!a}")
    if entry.n_rows != n_rows:
        raise JobError(f"it has {entry.n_rows} rows, the training file has {n_rows}")
    tokens = inner / LEFT_NAME
    if tokens.is_symlink() or not tokens.is_file() or sha256_file(tokens) != entry.sha256:
        raise JobError(f"`{LEFT_NAME}` is missing or has changed")


def _records(file: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the records of some lines, which are given from 0 and in order."""
    found: list[dict[str, Any]] = []
    with file.open("rb") as stream:
        position = 0
        for number in numbers:
            line = next(islice(stream, number - position, None))
            found.append(json.loads(line))
            position = number + 1
    return found


def _row(record: dict[str, Any], prompt_format: PromptFormat) -> Row:
    """Return a line of the training file (`data.write.write_trl_sft`) as a row again."""
    if prompt_format == "chat":
        turns = [*record["prompt"], *record["completion"]]
        return make_row(tuple(Message.model_validate(turn) for turn in turns))
    prompt = str(record["prompt"]).removesuffix(PLAIN_PROMPT_END)
    answer = Message(role="assistant", content=record["completion"])
    return make_row((Message(role="user", content=prompt), answer))


def _versions(ctx: RunContext) -> dict[str, str]:
    """Return what tokenises, as far as it is known here; the job compares what it really has."""
    if ctx.executor.name != "local":
        pins = shipped_pins().images["train"]
        known = {**pins.constraints, **pins.packages}
        return {"executor": ctx.executor.name, **{name: known.get(name, "any") for name in _PACKAGES}}
    found = {"executor": "local", "python": str(ctx.settings.python or "")}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _remove_left(out_dir: Path) -> None:
    left = out_dir / LEFT_NAME
    with contextlib.suppress(OSError):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _words(error: Exception) -> str:
    return error.message if isinstance(error, RdagentFtError) else str(error).splitlines()[0]
