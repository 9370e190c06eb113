"""`answers.partial.jsonl`: every answer is on disk before the next one is asked.

A later job in the same folder uses what was answered under the same fingerprint and asks the rest.
The fingerprint is on each row, so answers of another model cannot slip in, whoever put the file there.
Rows that are cut, damaged or foreign are left out, never repaired.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.items import ITEMS_MAX_BYTES, Answer
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.execution.outputs import open_inside
from rdagent_ft.values import Frozen, content_hash, write_atomic

PARTIAL_NAME = "answers.partial.jsonl"
ROW_MAX_BYTES = 16 << 20

Key = tuple[str, str, str, str, int, str]
"""(role, benchmark, split, item_id, repeat, prompt_hash)."""


class PartialRow(Frozen):
    """One line of the file.

    Attributes:
        fingerprint: `row_fingerprint` of what the answer was asked under.
        answer: as the harness hands it on; `unanswered` rows are asked again by the next job.
        logprobs: (log-probability, whether greedy decoding would give it) of each choice.
    """

    fingerprint: str
    role: str
    benchmark: str
    split: str
    answer: Answer
    logprobs: tuple[tuple[float, bool], ...] = ()

    @property
    def key(self) -> Key:
        """What the row answers."""
        found = self.answer
        return self.role, self.benchmark, self.split, found.item_id, found.repeat, found.prompt_hash


def row_fingerprint(request: EndpointRequest, target: EndpointTarget, task: EvalTask) -> str:
    """Return 16 hex digits of all that decides an answer, the caller's fingerprint included.

    The address is not part of it: a server that was restarted on another port is the same model.
    """
    parts: dict[str, Any] = {
        "fingerprint": request.fingerprint,
        "model": target.model,
        "protocol": target.protocol,
        "extra_body": target.extra_body,
        "prompt_format": request.prompt_format,
        "method": task.method,
        "max_new_tokens": task.max_new_tokens,
        "temperature": task.temperature,
        "seed": request.seed,
    }
    return content_hash(parts, 16)


def read_partial(request: EndpointRequest, out_dir: Path) -> dict[Key, PartialRow]:
    """Return the rows that belong to the request, an answered one before an unanswered one.

    Never raises for a missing, cut or damaged file: what cannot be read is not there.
    """
    valid = {
        (target.role, task.benchmark, task.split): row_fingerprint(request, target, task)
        for target, task in request.pairs()
    }
    found: dict[Key, PartialRow] = {}
    for row in _rows(out_dir):
        if valid.get((row.role, row.benchmark, row.split)) != row.fingerprint:
            continue
        known = found.get(row.key)
        if known is None or known.answer.unanswered is not None:
            found[row.key] = row
    return found


class PartialFile:
    """The file while a job writes it. Rows are appended whole and handed to the system at once."""

    def __init__(self, request: EndpointRequest, out_dir: Path) -> None:
        """Keep the usable answers and drop the rest. Raises `OSError` when the folder is not writable."""
        kept = read_partial(request, out_dir)
        self.rows: dict[Key, PartialRow] = {
            key: row for key, row in kept.items() if row.answer.unanswered is None
        }
        path = out_dir / PARTIAL_NAME
        write_atomic(path, "".join(map(_line, self.rows.values())))
        self._stream = path.open("a", encoding="utf-8")

    def add(self, row: PartialRow) -> None:
        """Append one row. Raises `OSError`, e.g. when the disk is full."""
        self._stream.write(_line(row))
        self._stream.flush()
        self.rows[row.key] = row

    def close(self) -> None:
        """Sync and close."""
        os.fsync(self._stream.fileno())
        self._stream.close()


def _line(row: PartialRow) -> str:
    return json.dumps(row.model_dump(mode="json")) + "\n"


def _rows(out_dir: Path) -> Iterator[PartialRow]:
    try:
        descriptor = open_inside(out_dir, PARTIAL_NAME)
    except JobError:
        return
    with os.fdopen(descriptor, "rb") as stream:
        n_left = ITEMS_MAX_BYTES
        while n_left > 0 and (line := stream.readline(min(ROW_MAX_BYTES, n_left))):
            n_left -= len(line)
            try:
                yield PartialRow.model_validate_json(line)
            except ValueError:
                continue
