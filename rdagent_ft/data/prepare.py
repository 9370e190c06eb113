"""Make training files of a dataset: read, think blocks, schema, shuffle, limit, split, write. In this order.

The same dataset, options and seed give the same bytes. Preference data keeps its pairs; think blocks and
schemas are for ordinary rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.data.formats import (
    ROW_FORMATS,
    PreferenceOutFormat,
    RowFormat,
    colliding_columns,
    write_format,
)
from rdagent_ft.data.json_schema import JsonSchema
from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.parts import (
    PartsManifest,
    check_parts,
    claim_folder,
    part_file,
    pin_part,
    pinned_inputs,
    shown_name,
    write_manifest,
)
from rdagent_ft.data.preference_write import table_columns
from rdagent_ft.data.preferences import PreferenceRow, read_preferences
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.rows import DatasetSource, Message, Row, make_row
from rdagent_ft.data.shares import Item, PartName, assign_parts, parse_shares, unit_order
from rdagent_ft.data.stream import scan
from rdagent_ft.data.thinking import with_thinking, without_thinking
from rdagent_ft.errors import DataError, Problem, UserError
from rdagent_ft.values import Frozen

AnyRow = Row | PreferenceRow
OutFormat = RowFormat | PreferenceOutFormat
MAX_STRATA = 200
_ROWS_PER_STRATUM = 5
_N_SHOWN = 5
_REPEATED = "repeats a row of validation or test"
_NOT_STRUCTURED = "the answer does not fit the schema"


class PrepareOptions(Frozen):
    """What decides the content of the parts.

    Attributes:
        form: format of the files; `trl` is prompt and completion, for preferences pairs or labels.
        limit: rows to use, drawn at random; None uses all.
        seed: of the order, the limit and the split.
        split: shares, as `shares.parse_shares` reads them.
        think: `wrap` puts a `<think>` block before every answer, `strip` takes it away.
        think_column: column with the thoughts for `wrap`; without it the block is empty.
        drop_invalid: leave rows out that do not fit the schema, instead of refusing the dataset.
    """

    form: OutFormat = "trl"
    limit: int | None = None
    seed: int = 42
    split: str = "0.85/0.10/0.05"
    think: Literal["none", "wrap", "strip"] = "none"
    think_column: str | None = None
    drop_invalid: bool = False


class _Read(NamedTuple):
    """The rows before they are split."""

    rows: Sequence[AnyRow]
    read_as: str
    mapping: dict[str, str]
    n_read: int
    dropped: Counter[str]
    notes: tuple[str, ...]


def prepare_dataset(
    source: DatasetSource,
    out: Path,
    options: PrepareOptions,
    columns: dict[str, str] | None = None,
    schema: JsonSchema | None = None,
) -> PartsManifest:
    """Write the parts and the manifest of `source` into `out`; return the manifest.

    Raises `DataError` for rows that cannot be read, do not fit the schema or the format, or give an empty
    part; `UserError` for options that do not fit the data and for a folder that holds something else.
    """
    shares = parse_shares(options.split)
    read = _read(source, options, columns, schema)
    order = sorted(read.rows, key=lambda row: unit_order(options.seed, f"order:{row.item_id}"))
    if options.limit is not None and len(order) > options.limit:
        read.dropped[f"over the limit of {options.limit}"] = len(order) - options.limit
        order = order[: options.limit]
    parts, n_repeats = _parts(order, shares, options.seed)
    if n_repeats:
        read.dropped[_REPEATED] = n_repeats
    check_parts({name: len(rows) for name, rows in parts.items()})
    form, parts, notes = _fitted(parts, options)
    claim_folder(out, source)
    for name, rows in parts.items():
        write_format(out / part_file(name), rows, form)
    manifest = PartsManifest(
        dataset=shown_name(source),
        revision=source.revision,
        inputs=pinned_inputs(source),
        format=form,
        read_as=read.read_as,
        mapping=read.mapping,
        options=options.model_dump(mode="json"),
        n_read=read.n_read,
        dropped=dict(read.dropped.most_common()),
        parts={name: pin_part(out / part_file(name), len(rows)) for name, rows in parts.items()},
        notes=(*read.notes, *notes),
    )
    write_manifest(out, manifest)
    return manifest


def _read(
    source: DatasetSource,
    options: PrepareOptions,
    columns: dict[str, str] | None,
    schema: JsonSchema | None,
) -> _Read:
    """Return the rows with their think blocks, checked against the schema."""
    kind = scan(source, columns).preferences
    # Labelled answers are ordinary rows too: those with the label true.
    if kind is not None and (kind != "kto" or options.form not in ROW_FORMATS or options.form == "trl"):
        if options.form in ROW_FORMATS and options.form != "trl":
            raise DataError(
                f"the dataset holds preferences, which {options.form} cannot hold",
                hint="use --format pairs, kto or trl; --columns completion=chosen takes the chosen answers",
            )
        if schema is not None or options.think != "none":
            raise UserError(
                "a schema and think blocks are for rows with one answer, and these are preferences"
            )
        preferences, found = read_preferences(source, columns)
        dropped = Counter(found.dropped)
        return _Read(preferences, found.format, found.mapping, found.n_read, dropped, found.notes)
    if options.form not in ROW_FORMATS:
        raise DataError(
            f"the format {options.form} holds preferences, and the dataset has one answer a row",
            hint="give chosen and rejected, or a label of true or false",
        )
    rows, report = read_rows(source, columns)
    dropped, notes = Counter(report.dropped), report.notes
    if schema is not None:
        kept = _fitting(rows, schema, drop_invalid=options.drop_invalid)
        if len(kept) < len(rows):
            dropped[_NOT_STRUCTURED] = len(rows) - len(kept)
        rows = kept
    rows = _thinking(rows, options)
    return _Read(rows, report.format, report.mapping, report.n_read, dropped, notes)


def _fitting(rows: list[Row], schema: JsonSchema, *, drop_invalid: bool) -> list[Row]:
    """Return the rows whose answers fit; a think block in front of an answer is not part of it."""
    found = [schema.problem_in(without_thinking(row.completion)) for row in rows]
    kept = [row for row, reason in zip(rows, found, strict=True) if reason is None]
    if kept and (drop_invalid or len(kept) == len(rows)):
        return kept
    problems = [
        Problem(f"row {number}", None, reason, "data.schema", "correct the answer, or leave it out")
        for number, reason in enumerate(found, start=1)
        if reason is not None
    ]
    raise DataError(
        f"{len(problems)} of {len(rows)} answers do not fit the schema",
        hint="--drop-invalid leaves them out" if kept else None,
        problems=tuple(problems[:_N_SHOWN]),
    )


def _thinking(rows: list[Row], options: PrepareOptions) -> list[Row]:
    """Return the rows with think blocks put before their answers, or taken away."""
    column = options.think_column
    if column is not None:
        if options.think != "wrap":
            raise UserError("--think-column needs --think wrap")
        if all(column not in row.meta for row in rows):
            names = sorted({name for row in rows for name in row.meta})
            raise DataError(
                f"no row has the column {column!r} for --think-column",
                hint=f"the other columns are {', '.join(names[:20]) or 'none'}",
            )
    if options.think == "none":
        return rows
    return [_with_answer(row, _thought(row, options)) for row in rows]


def _thought(row: Row, options: PrepareOptions) -> str:
    if options.think == "strip":
        rest = without_thinking(row.completion)
        if not rest.strip():
            raise DataError(f"an answer is a think block only: {row.completion[:80]!r}")
        return rest
    column = options.think_column
    thoughts = "" if column is None else row.meta.get(column, "")
    if not isinstance(thoughts, str):
        raise DataError(f"the column {column!r} for --think-column is not text in every row")
    return with_thinking(row.completion, thoughts)


def _with_answer(row: Row, answer: str) -> Row:
    turns = (*row.prompt, Message(role="assistant", content=answer))
    return make_row(turns, source=row.source, meta=row.meta)


def _parts(
    rows: Sequence[AnyRow], shares: Mapping[PartName, Fraction], seed: int
) -> tuple[dict[PartName, list[AnyRow]], int]:
    """Return the parts in the order of the rows, and how many repeats validation and test leave out."""
    distinct = list({row.item_id: row for row in rows}.values())
    plain = [row.as_row() if isinstance(row, PreferenceRow) else row for row in distinct]
    clusters = near_duplicate_clusters(plain)
    strata = strata_of(plain)
    items = [
        Item(row.item_id, clusters[one.item_id], stratum)
        for row, one, stratum in zip(distinct, plain, strata, strict=True)
    ]
    named = zip(distinct, assign_parts(items, shares, seed=seed), strict=True)
    placed: dict[str, PartName] = {row.item_id: name for row, name in named}
    parts: dict[PartName, list[AnyRow]] = {name: [] for name in shares}
    seen: set[str] = set()
    n_repeats = 0
    for row in rows:
        name = placed[row.item_id]
        if name != "train" and row.item_id in seen:
            n_repeats += 1
            continue
        seen.add(row.item_id)
        parts[name].append(row)
    return parts, n_repeats


def strata_of(rows: Sequence[Row]) -> list[str]:
    """Return what to spread evenly: the answer where few are given, else the source, else nothing."""
    for values in ([row.completion for row in rows], [row.source or "" for row in rows]):
        n_values = len(set(values))
        if 1 < n_values <= MAX_STRATA and n_values * _ROWS_PER_STRATUM <= len(rows):
            return values
    return [""] * len(rows)


def _fitted(
    parts: dict[PartName, list[AnyRow]], options: PrepareOptions
) -> tuple[OutFormat, dict[PartName, list[AnyRow]], tuple[str, ...]]:
    """Return the format to write, rows with the columns it can carry, and notes about the others."""
    every = [row for rows in parts.values() for row in rows]
    ordinary = [row for row in every if isinstance(row, Row)]
    if not ordinary:
        all_pairs = all(row.is_pair for row in every if isinstance(row, PreferenceRow))
        form = options.form if options.form != "trl" else "pairs" if all_pairs else "kto"
        return form, parts, ()
    assert options.form in ROW_FORMATS  # checked when reading
    form = options.form
    names = {name for row in ordinary for name in row.meta}
    left_out = set(colliding_columns(ordinary, form))
    left_out |= (names - set(table_columns(ordinary))) if form == "trl" else set()
    kept = sorted(names - left_out)
    fitted: dict[PartName, list[AnyRow]] = {
        name: [_with_columns(row, kept) for row in rows] for name, rows in parts.items()
    }
    notes = (
        (f"columns left out, which {form} cannot carry: {', '.join(sorted(left_out))}",) if left_out else ()
    )
    return form, fitted, notes


def _with_columns(row: AnyRow, names: Sequence[str]) -> AnyRow:
    """Return a row with exactly these other columns; readers of tables want them in every record."""
    if isinstance(row, PreferenceRow):
        return row
    return row.model_copy(update={"meta": {name: row.meta.get(name) for name in names}})
