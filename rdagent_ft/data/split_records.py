"""Split a file into parts whose records are those of the input, column for column.

For data in a form that another tool reads already. What cannot be read as a row or a preference cannot be
compared with others, so it is in no part and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rdagent_ft.data.decontaminate import write_records
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
from rdagent_ft.data.preference_columns import map_preference_columns
from rdagent_ft.data.preferences import preference_of
from rdagent_ft.data.prepare import strata_of
from rdagent_ft.data.read import records_of, usable_row
from rdagent_ft.data.records import Record
from rdagent_ft.data.rows import DatasetSource, Row
from rdagent_ft.data.shares import Item, PartName, assign_parts, parse_shares
from rdagent_ft.data.stream import Scan, row_mapping, scan
from rdagent_ft.data.turns import Unusable, is_nan
from rdagent_ft.errors import DataError


def split_dataset(
    source: DatasetSource, out: Path, split: str, *, seed: int, columns: dict[str, str] | None = None
) -> PartsManifest:
    """Write the records of `source` into parts of the given shares; return the manifest.

    Records that say nearly the same, copies included, go to one part; labels are spread evenly. Records
    keep their order. Raises `DataError` for unusable data and for an empty part, `UserError` for bad shares
    and a folder that holds something else.
    """
    shares = parse_shares(split)
    found = scan(source, columns)
    records = [record for ref in source.files for record in records_of(Path(ref.path))]
    usable, rows, dropped, read_as, mapping = _judged(records, found, columns)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common(5))
        raise DataError(f"none of the {len(records)} records can be used: {reasons}")
    parts = _assigned(usable, rows, shares, seed)
    check_parts({name: len(each) for name, each in parts.items()})
    claim_folder(out, source)
    for name, each in parts.items():
        write_records(out / part_file(name), each)
    manifest = PartsManifest(
        dataset=shown_name(source),
        revision=source.revision,
        inputs=pinned_inputs(source),
        format="as it was",
        read_as=read_as,
        mapping=mapping,
        options={"split": split, "seed": seed},
        n_read=len(records),
        dropped=dict(dropped.most_common()),
        parts={name: pin_part(out / part_file(name), len(each)) for name, each in parts.items()},
        notes=source.notes,
    )
    write_manifest(out, manifest)
    return manifest


def _judged(
    records: Sequence[Record], found: Scan, columns: dict[str, str] | None
) -> tuple[list[Record], list[Row], Counter[str], str, dict[str, str]]:
    """Return the records that can be read with their rows, reason -> others, the format and the mapping."""
    as_pairs = map_preference_columns(found.sample, columns) if found.preferences is not None else None
    as_rows = row_mapping(found, columns) if as_pairs is None else None
    usable: list[Record] = []
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    for record in records:
        try:
            if as_pairs is not None:
                row = preference_of(record, as_pairs).as_row()
            else:
                assert as_rows is not None
                row = usable_row(record, as_rows, labelled=False)
        except Unusable as error:
            dropped[str(error)] += 1
            continue
        usable.append(record)
        rows.append(row)
    mapping = as_pairs or as_rows
    assert mapping is not None
    return usable, rows, dropped, mapping.format, mapping.fields


def _assigned(
    records: Sequence[Record], rows: Sequence[Row], shares: dict[PartName, Fraction], seed: int
) -> dict[PartName, list[Record]]:
    clusters = near_duplicate_clusters(rows)
    strata = strata_of(rows)
    items = [
        Item(row.item_id, clusters[row.item_id], stratum) for row, stratum in zip(rows, strata, strict=True)
    ]
    parts: dict[PartName, list[Record]] = {name: [] for name in shares}
    for record, name in zip(records, assign_parts(items, shares, seed=seed), strict=True):
        parts[name].append(record._replace(columns=_without_nan(record.columns)))
    return parts


def _without_nan(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with empty cells as null: NaN is not JSON."""
    return {name: None if is_nan(value) else value for name, value in columns.items()}
