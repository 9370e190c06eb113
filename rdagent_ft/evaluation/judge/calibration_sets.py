"""Labelled examples that a judge is measured on: LLMBar's files, and the small own set that ships.

LLMBar's form: a JSON list of `input`, `output_1`, `output_2`, `label` (1 or 2: the better output). The
own set is for smoke tests: it can fail a judge and cannot pass one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError

from rdagent_ft.errors import JobError, UserError
from rdagent_ft.evaluation.judge.rubrics import CALIBRATION_FILE, read_yaml
from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen, content_hash

MAX_FILE_BYTES = 16 << 20
MAX_PAIRS = 5_000
SetKind = Literal["natural", "adversarial", "smoke", "reported"]
"""`natural` and `adversarial` carry the gate, `smoke` can only fail it, `reported` is shown."""


class LabelledPair(Frozen):
    """An instruction with two outputs, one of which is better."""

    input: str
    output_1: str
    output_2: str
    label: Literal[1, 2]


class LabelledAnswer(Frozen):
    """An answer that does, or does not, say the same as the reference."""

    question: str
    reference: str
    answer: str
    label: Literal["correct", "incorrect"]


class CalibrationSet(Frozen):
    """Labelled examples of one kind: pairs for the pairwise job, answers for the equivalence job."""

    name: str
    kind: SetKind
    pairs: Annotated[tuple[LabelledPair, ...], Field(max_length=MAX_PAIRS)] = ()
    answers: Annotated[tuple[LabelledAnswer, ...], Field(max_length=MAX_PAIRS)] = ()

    @property
    def fingerprint(self) -> str:
        """Hash over kind and content."""
        return content_hash(self, n_chars=16)


def smoke_set() -> CalibrationSet:
    """Return the labelled set that ships with the program."""
    document = read_yaml(shipped_folder("rubrics") / CALIBRATION_FILE)
    return CalibrationSet(name="smoke", kind="smoke", pairs=document["pairs"], answers=document["answers"])


def read_llmbar(folder: Path) -> list[CalibrationSet]:
    """Return the sets `Natural.json` and `Adversarial_*.json` that lie in `folder`; [] where none does.

    Raises `UserError` for a file that is not of LLMBar's form.
    """
    found = [folder / "Natural.json", *sorted(folder.glob("Adversarial_*.json"))]
    return [
        read_pairs(path, "natural" if path.stem == "Natural" else "adversarial")
        for path in found
        if path.is_file()
    ]


def read_pairs(path: Path, kind: SetKind) -> CalibrationSet:
    """Return the pairs of a JSON list, or of JSON lines. Other keys are ignored. Raises `UserError`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        if path.suffix == ".jsonl":
            rows: Any = read_json_lines(path.parent, path.name, MAX_FILE_BYTES)
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except JobError as error:
        raise UserError(error.message) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {str(error)[:200]}") from None
    if not isinstance(rows, list):
        raise UserError(f"{path} holds no list of labelled pairs")
    names = tuple(LabelledPair.model_fields)
    try:
        pairs = [{name: row[name] for name in names} for row in cast(list[dict[str, Any]], rows)]
        return CalibrationSet.model_validate({"name": path.stem, "kind": kind, "pairs": pairs})
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"{path} holds no labelled pairs: {' '.join(str(error).split())[:200]}",
            hint="a JSON list of objects with input, output_1, output_2 and label (1 or 2)",
        ) from None
