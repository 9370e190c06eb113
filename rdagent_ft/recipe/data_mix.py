"""Which rows of the train split a recipe uses, what is done to them, and in which order.

Declarations only: `data/mix.py` applies them, `engine/steps/teacher.py` asks the teacher. Which values
contradict each other is judged in `data_rules.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from rdagent_ft.values import Frozen

MAX_SCRIPT_CHARS = 32_000
MAX_SOURCES = 1_000
_LATER_FIELDS = ("script", "where", "source_weights", "source_caps", "think", "think_column", "teacher")
"""Fields that recipes of earlier versions have not: left out of the JSON where they are null."""

Scalar = bool | int | float | str


class Condition(Frozen):
    """What a row must meet to be kept. A row without the field meets no condition.

    Attributes:
        field: `source`, or `meta.NAME` for another column of the dataset.
        op: `lt` and `gt` compare numbers, also numbers that are written as text; `contains` looks for a
            part of a text or an item of a list; `in` takes a list of values.
        value: what the field is compared with.
    """

    field: Annotated[str, Field(pattern=r"^(source|meta\..+)$", max_length=200)]
    op: Literal["eq", "ne", "in", "lt", "gt", "contains"] = "eq"
    value: Scalar | tuple[Scalar, ...]

    @property
    def words(self) -> str:
        """The condition as a reason: `where meta.grade gt 3`."""
        text = str(self.value)
        return f"where {self.field} {self.op} {text if len(text) <= 60 else text[:57] + '...'}"


class SourceWeight(Frozen):
    """How often the rows of one source are used: 2 is every row twice, 0.5 is half of them."""

    source: str
    weight: Annotated[float, Field(gt=0.0, le=10.0)]


class SourceCap(Frozen):
    """At most so many rows of one source, repeats counted."""

    source: str
    max_items: Annotated[int, Field(ge=1, le=100_000_000)]


def _by_source(field: str) -> BeforeValidator:
    """Take `{web: 0.5}` for `[{source: web, weight: 0.5}]`; entries are sorted, their order means nothing."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = cast("dict[Any, Any]", value)
            value = [{"source": name, field: number} for name, number in pairs.items()]
        if not isinstance(value, (list, tuple)):
            return value
        entries = cast("tuple[Any, ...]", tuple(value))  # pyright: ignore[reportUnknownArgumentType]
        return tuple(sorted(entries, key=_source_of))

    return BeforeValidator(read)


def _source_of(entry: Any) -> str:
    if isinstance(entry, dict):
        return str(cast("dict[str, Any]", entry).get("source"))
    return str(getattr(entry, "source", ""))


def _keep_is_none(value: Any) -> Any:
    return None if value == "keep" else value


class TeacherSamples(Frozen):
    """Off-policy distillation: a stronger model answers the training prompts, and its answers are trained.

    The teacher is the endpoint of FT_TEACHER_MODEL; its answers take the place of the gold answers.

    Attributes:
        n_samples: answers asked for each prompt.
        temperature: of the sampling; several samples need one above 0.
        max_prompts: at most so many prompts of the selected rows are asked, drawn by `shuffle_seed`.
        keep: `correct` keeps answers that the task's scorer gives the full score; `all` keeps every one.
        max_tokens: longest answer; one that is cut there is not used.
    """

    n_samples: Annotated[int, Field(ge=1, le=8)] = 1
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    max_prompts: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    keep: Literal["correct", "all"] = "correct"
    max_tokens: Annotated[int, Field(ge=64, le=131_072)] = 1_024


Weights = Annotated[
    tuple[SourceWeight, ...], Field(min_length=1, max_length=MAX_SOURCES), _by_source("weight")
]
Caps = Annotated[tuple[SourceCap, ...], Field(min_length=1, max_length=MAX_SOURCES), _by_source("max_items")]


class DataMix(Frozen):
    """Which rows of the train split are used, what is done to them, in which order.

    Applied before tokenisation, in this order: script, selection (`exclude_sources`, `where`), teacher,
    `think`, `max_row_tokens`, `dedupe`, `source_weights`, shuffle, `source_caps`, `max_items`.

    Attributes:
        script: Python source that reads the train split and writes the rows to use instead; the other
            fields then apply to its rows. Runs in a container only. None uses the split as it is.
        dedupe: drop repeated rows: `exact` by normalised text, `near` by near-duplicate group.
        exclude_sources: values of a row's `source` to leave out.
        where: conditions that a row must meet, all of them; None keeps all rows.
        source_weights: source -> how often its rows are used; a source that is not named keeps weight 1.
        source_caps: source -> at most so many rows.
        think: `wrap` puts a `<think>` block with the reasoning before the answer, `empty` an empty block,
            `strip` takes blocks away; None (or `keep`) leaves answers as they are.
        think_column: for `wrap`: the column with the reasoning (`rationale`). None takes what stands before
            the last line of the answer.
        teacher: train on a teacher's answers; None trains on the gold answers.
        max_row_tokens: drop rows whose prompt + completion is longer (tokens); None keeps all.
        max_items: keep at most this many rows after the shuffle; None keeps all.
        shuffle_seed: seed of the shuffle, of what weights draw, and of the prompts that a teacher is asked.
    """

    script: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARS)] | None = None
    dedupe: Literal["none", "exact", "near"] = "none"
    exclude_sources: tuple[str, ...] = ()
    where: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=20)] | None = None
    source_weights: Weights | None = None
    source_caps: Caps | None = None
    think: Annotated[Literal["wrap", "strip", "empty"] | None, BeforeValidator(_keep_is_none)] = None
    think_column: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    teacher: TeacherSamples | None = None
    max_row_tokens: Annotated[int, Field(ge=8, le=1_000_000)] | None = None
    max_items: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    shuffle_seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave absent later fields out, so that recipes keep the JSON and the hash they had before them."""
        values: dict[str, Any] = inner(self)
        for name in _LATER_FIELDS:
            if values.get(name) is None:
                values.pop(name, None)
        return values
