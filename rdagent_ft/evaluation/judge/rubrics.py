"""Rubrics: what a judge checks in an open-ended answer, as YAML that people edit.

A rubric is a list of yes/no criteria (`checklist`) or of criteria with levels 1 to 5 (`levels`). Own
rubrics are files of the same form. How criteria become a score is in `grading.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from rdagent_ft.errors import Problem, UserError
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen, content_hash

MAX_RUBRIC_BYTES = 100_000
CALIBRATION_FILE = "calibration.yaml"
_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_RESERVED = frozenset({"verdict", "confidence", "rationale"})


class Criterion(Frozen):
    """One thing to check.

    Attributes:
        weight: share in the score, relative to the other criteria.
        essential: an answer that misses it (`no`, or level 1) scores 0, whatever else it does.
        levels: level -> what it looks like; for the scale `levels` only, at least 1 and 5.
    """

    id: _Id
    question: Annotated[str, Field(min_length=10, max_length=600)]
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    essential: bool = False
    levels: dict[Annotated[int, Field(ge=1, le=5)], str] = {}


class Rubric(Frozen):
    """A rubric. Raise `version` whenever wording changes what is measured: old scores are another thing."""

    id: _Id
    version: Annotated[int, Field(ge=1)]
    purpose: str
    scale: Literal["checklist", "levels"]
    instructions: Annotated[str, Field(max_length=4_000)]
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _consistent(self) -> Rubric:
        ids = [criterion.id for criterion in self.criteria]
        if len(set(ids)) != len(ids):
            raise ValueError("two criteria have the same id")
        if taken := _RESERVED & set(ids):
            raise ValueError(f"{sorted(taken)} are keys of every reply and cannot be criteria")
        for criterion in self.criteria:
            if self.scale == "checklist" and criterion.levels:
                raise ValueError(f"{criterion.id}: a checklist has no levels")
            if self.scale == "levels" and not {1, 5} <= set(criterion.levels):
                raise ValueError(f"{criterion.id}: describe at least the levels 1 and 5")
        return self

    @property
    def key(self) -> str:
        """Name, version and a hash of the wording: equal keys mean the same rubric."""
        return f"{self.id}@{self.version}-{content_hash(self, n_chars=8)}"

    def criteria_text(self) -> str:
        """Return the criteria as the judge reads them."""
        values = "yes, no or cannot_judge" if self.scale == "checklist" else "1 to 5 or cannot_judge"
        lines = [f"(each one: {values})"]
        for criterion in self.criteria:
            lines.append(f"- {criterion.id}: {criterion.question}")
            lines += [f"    {level}: {text}" for level, text in sorted(criterion.levels.items())]
        return "\n".join(lines)


def rubric_names() -> tuple[str, ...]:
    """Return the ids of all shipped rubrics."""
    paths = shipped_folder("rubrics").glob("*.yaml")
    return tuple(sorted(path.stem for path in paths if path.name != CALIBRATION_FILE))


def read_rubric(name_or_path: str | Path) -> Rubric:
    """Return a shipped rubric by its id, or the one in a file. Raises `UserError` with all problems."""
    is_name = isinstance(name_or_path, str) and not name_or_path.endswith((".yaml", ".yml"))
    path = shipped_folder("rubrics") / f"{name_or_path}.yaml" if is_name else Path(name_or_path)
    if is_name and name_or_path not in rubric_names():
        raise UserError(
            f"no rubric {name_or_path!r}", hint=f"one of {', '.join(rubric_names())}, or the path of a .yaml"
        )
    document = read_yaml(path)
    try:
        return Rubric.model_validate(document)
    except ValidationError as error:
        problems = tuple(
            Problem(
                key=".".join(map(str, found["loc"])) or "rubric",
                value=None,
                rule=found["msg"],
                problem_class="judge.rubric",
                fix="see rubrics/helpfulness.yaml for the form",
            )
            for found in error.errors(include_url=False, include_input=False, include_context=False)
        )
    raise UserError(f"{path} is no rubric", problems=problems)


def read_yaml(path: Path) -> Any:
    """Return the YAML document in a small file. Raises `UserError`."""
    try:
        if path.stat().st_size > MAX_RUBRIC_BYTES:
            raise UserError(f"{path} is larger than {MAX_RUBRIC_BYTES} bytes")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
