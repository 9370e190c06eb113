"""A stage's data file in the form that LLaMA-Factory reads, with its `dataset_info.json`.

The input is what the same stage has with TRL (JSON lines): `prompt`/`completion`, `messages`,
`prompt`/`chosen`/`rejected` or `prompt`/`completion`/`label`; values are texts or lists of turns. Texts
become the trainer's `alpaca` form, turns its `sharegpt` form. The trainer skips rows that it cannot
read with a warning only, so such rows are refused here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import DataError
from rdagent_ft.recipe.stages import StageKind
from rdagent_ft.values import Frozen, write_atomic, write_json

DATA_KIND: dict[StageKind, Literal["sft", "pairs", "kto"]] = {
    "sft": "sft",
    "dpo": "pairs",
    "reward": "pairs",
    "kto": "kto",
}
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
Line = dict[str, Any]


class PlainTexts(Frozen):
    """Texts around a plain row, whose template adds nothing of its own.

    Attributes:
        begin: before the prompt: the text of the beginning token where the tokenizer adds one, else empty.
        end: behind the answer: the text of the end token.
    """

    begin: str = ""
    end: str = ""


def write_dataset(source: Path, folder: Path, kind: StageKind, *, plain: PlainTexts | None = None) -> Path:
    """Write `train.jsonl` and `dataset_info.json` into `folder`; return the data file's path.

    Args:
        source: the stage's data file as TRL reads it.
        folder: gets both files; `StagePaths.train_file` is the returned path.
        kind: the stage's kind.
        plain: needed when prompts are texts, not turns.

    Raises `DataError`, naming the line, for a row that the trainer would skip or read differently.
    """
    if kind not in DATA_KIND:
        raise DataError(f"LLaMA-Factory has no data form for {kind!r}")
    rows = list(_rows(source, kind, plain))
    if not rows:
        raise DataError(f"{str(source)!r} has no rows")
    chats = {is_chat for is_chat, _ in rows}
    if len(chats) > 1:
        raise DataError(f"{str(source)!r} mixes texts and lists of turns")
    target = folder / "train.jsonl"
    write_atomic(target, (json.dumps(row, ensure_ascii=False) + "\n" for _, row in rows))
    info = {target.stem: {"file_name": target.name, **_form(kind, is_chat=chats.pop())}}
    write_json(folder / "dataset_info.json", info)
    return target


def _form(kind: StageKind, *, is_chat: bool) -> Line:
    """Return the entry of `dataset_info.json`: form, columns, and what the columns mean."""
    data = DATA_KIND[kind]
    columns = {"messages": "messages"} if is_chat else {"prompt": "prompt"}
    if data == "pairs":
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    elif not is_chat:
        columns |= {"response": "completion"}
    if data == "kto":
        columns |= {"kto_tag": "label"}
    form: Line = {"formatting": "sharegpt" if is_chat else "alpaca", "columns": columns}
    if data == "pairs":
        form["ranking"] = True
    if is_chat:
        form["tags"] = _TAGS
    return form


def _rows(source: Path, kind: StageKind, plain: PlainTexts | None) -> Iterator[tuple[bool, Line]]:
    with source.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            where = f"{str(source)!r}, line {number}"
            try:
                row: Any = json.loads(text)
            except ValueError as error:
                raise DataError(f"{where}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: no JSON object")
            values = cast(Line, row)
            if isinstance(values.get("prompt"), str):
                if plain is None:
                    raise DataError(f"{where}: the prompt is a text, and no end token was named for it")
                yield False, _plain_row(values, DATA_KIND[kind], plain, where)
            else:
                yield True, _chat_row(values, DATA_KIND[kind], where)


def _plain_row(row: Line, data: Literal["sft", "pairs", "kto"], plain: PlainTexts, where: str) -> Line:
    def ended(column: str) -> str:
        text = row.get(column)
        if not isinstance(text, str) or not text:
            raise DataError(f"{where}: `{column}` must be a text that is not empty")
        return text if plain.end and text.endswith(plain.end) else text + plain.end

    new: Line = {"prompt": plain.begin + row["prompt"]}
    if data == "pairs":
        return new | {"chosen": ended("chosen"), "rejected": ended("rejected")}
    new["completion"] = ended("completion")
    return new | {"label": _label(row, where)} if data == "kto" else new


def _chat_row(row: Line, data: Literal["sft", "pairs", "kto"], where: str) -> Line:
    if data == "sft" and "messages" in row:
        return {"messages": _conversation(row["messages"], "user", where)}
    prompt = _turns(row.get("prompt"), "prompt", where)
    if data == "pairs":
        answers = {column: _answer(row.get(column), column, where) for column in ("chosen", "rejected")}
        return {"messages": _conversation(prompt, "assistant", where), **answers}
    completion = [_answer(row.get("completion"), "completion", where)]
    new: Line = {"messages": _conversation([*prompt, *completion], "user", where)}
    return new | {"label": _label(row, where)} if data == "kto" else new


def _answer(value: Any, column: str, where: str) -> Line:
    turns = _turns(value, column, where)
    if len(turns) != 1 or turns[0]["role"] != "assistant" or not turns[0]["content"]:
        raise DataError(f"{where}: `{column}` must be one assistant turn that is not empty")
    return turns[0]


def _conversation(value: Any, next_role: Literal["user", "assistant"], where: str) -> list[Line]:
    """Return turns that alternate after an optional system turn and after which `next_role` would speak."""
    turns = _turns(value, "messages", where)
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    wanted = ["user", "assistant"] * len(spoken)
    ends_well = bool(spoken) and spoken[-1] == ("assistant" if next_role == "user" else "user")
    if spoken != wanted[: len(spoken)] or not ends_well:
        shown = ", ".join(roles[:8]) + (", …" if len(roles) > 8 else "")
        raise DataError(
            f"{where}: LLaMA-Factory reads turns that alternate between user and assistant, not {shown}",
            hint="train such conversations with `trl`",
        )
    return turns


def _turns(value: Any, column: str, where: str) -> list[Line]:
    turns: list[Line] = []
    for entry in cast("list[Any]", value) if isinstance(value, list) else []:
        turn = cast(Line, entry) if isinstance(entry, dict) else {}
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{where}: a turn of `{column}` lacks the texts `role` and `content`")
        turns.append({"role": role, "content": content})
    if not turns:
        raise DataError(f"{where}: `{column}` must be a list of turns that is not empty")
    return turns


def _label(row: Line, where: str) -> bool:
    label = row.get("label")
    if not isinstance(label, bool):
        raise DataError(f"{where}: `label` must be true or false")
    return label
