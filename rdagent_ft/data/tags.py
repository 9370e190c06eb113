"""Labels by a small taxonomy, such as grade and topic: what may be said of a row, and rows with it said.

Pure: who chooses the labels is in `engine/tagging.py`. A label is a column of its own, so that a data mix
selects by it (`where: [{field: meta.grade, value: hard}]`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field, create_model

from rdagent_ft.data.records import Record
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.values import Frozen

MAX_NAMES = 10
MAX_VALUES = 50
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")


class Tag(Frozen):
    """One name with the values of which every row gets exactly one."""

    name: str
    values: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_VALUES)]


class Taxonomy(Frozen):
    """All names, in the order in which they are asked."""

    tags: Annotated[tuple[Tag, ...], Field(min_length=1, max_length=MAX_NAMES)]

    @property
    def words(self) -> str:
        """The taxonomy as lines `name: one of a, b`."""
        return "\n".join(f"- {tag.name}: one of {', '.join(tag.values)}" for tag in self.tags)


def parse_taxonomy(values: Any) -> Taxonomy:
    """Return the taxonomy of a mapping `{grade: [easy, hard], topic: [...]}`. Raises `UserError`."""
    wrong = None
    entries = cast("dict[Any, Any]", values) if isinstance(values, dict) else {}
    if not 1 <= len(entries) <= MAX_NAMES:
        wrong = f"needs 1 to {MAX_NAMES} names"
    tags: list[Tag] = []
    for name, listed in entries.items():
        choices = (
            [str(each).strip() for each in cast("list[Any]", listed)] if isinstance(listed, list) else []
        )
        if not _NAME.fullmatch(str(name)):
            wrong = f"has the name {str(name)[:60]!r}; a name is a letter and letters, digits or _"
        elif not 2 <= len(set(choices)) == len(choices) <= MAX_VALUES or not all(choices):
            wrong = f"needs 2 to {MAX_VALUES} different values for {name!r}"
        else:
            tags.append(Tag(name=str(name), values=tuple(choices)))
    if wrong is not None:
        raise UserError(f"the taxonomy {wrong}", hint="write {grade: [easy, hard], topic: [algebra, other]}")
    return Taxonomy(tags=tuple(tags))


def reply_class(taxonomy: Taxonomy) -> type[BaseModel]:
    """Return the class of a reply that holds one allowed value for every name, and nothing else."""
    fields: dict[str, Any] = {tag.name: (Literal[tag.values], ...) for tag in taxonomy.tags}
    return create_model("TagReply", __base__=Frozen, **fields)


def check_free(records: Sequence[Record], taxonomy: Taxonomy) -> None:
    """Raise `DataError` when a column that would be written exists."""
    taken = sorted({tag.name for tag in taxonomy.tags} & {name for each in records for name in each.columns})
    if taken:
        raise DataError(
            f"the dataset has the column {taken[0]!r} already", hint="give the label another name"
        )


def with_tags(record: Record, tags: Mapping[str, str]) -> Record:
    """Return the record with its labels as columns after the others."""
    return record._replace(columns={**record.columns, **tags})


def tag_counts(taxonomy: Taxonomy, tagged: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Return name -> value -> rows, in the taxonomy's order, values that nothing got included."""
    found = {tag.name: Counter(row[tag.name] for row in tagged) for tag in taxonomy.tags}
    return {tag.name: {value: found[tag.name][value] for value in tag.values} for tag in taxonomy.tags}
