"""`rdagent-ft data`: the group, and `decontaminate`: which rows of a file repeat evaluation items.

The other verbs are in `data_files.py` and `data_tag.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdagent_ft.cli.data_files import audit, prepare, split
from rdagent_ft.cli.data_tag import tag
from rdagent_ft.cli.options import AsJson, EnvFile

if TYPE_CHECKING:
    from rdagent_ft.data.decontaminate import FileCheck, Pair

data_app = typer.Typer(help="Look at training data, and make files of it.", no_args_is_help=True)
data_app.command()(prepare)
data_app.command()(audit)
data_app.command()(split)
data_app.command()(tag)

LEAK_EXIT_CODE = 9
"""Leaks were found and `--fail-on-leak` was given. No other verb uses it."""

_REASONS = {
    "exact": "whole question",
    "short": "whole short question",
    "answer": "question with its answer",
    "coverage": "13-grams",
    "run": "long run",
    "near": "nearly the same",
}


@data_app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Look at training data, and make files of it."""


@data_app.command()
def decontaminate(
    train: Annotated[Path, typer.Argument(help="Training file: json, jsonl, csv (also .gz) or parquet.")],
    against: Annotated[
        list[str], typer.Option("--against", help="Evaluation file, or a benchmark's name. Repeatable.")
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[EVAL]...", help="Further evaluation files or names.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the rows that do not leak (jsonl, json or csv).")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns of TRAIN, e.g. prompt=text,completion=label.")
    ] = None,
    eval_columns: Annotated[
        str | None, typer.Option("--eval-columns", help="Columns of the evaluation files, in the same form.")
    ] = None,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit 9 when a row leaks; otherwise leaks exit 0.")
    ] = False,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """List every training row that repeats an evaluation item, with the reason."""
    import json
    import time

    from rdagent_ft.cli.columns_option import parse_columns
    from rdagent_ft.cli.eval_sources import eval_sources, items_of
    from rdagent_ft.data.decontaminate import check_records, read_file, write_records
    from rdagent_ft.values import sha256_file

    started = time.monotonic()
    train_file, sources = _train_file(train), eval_sources([*against, *(more or [])], env_file)
    if out is not None:
        _check_out(out, [train_file, *(source.path for source in sources)])
    mapped, eval_mapped = parse_columns(columns) or {}, parse_columns(eval_columns) or {}
    records = read_file(train_file)
    found = [items_of(source, eval_mapped) for source in sources]
    items = [item for each in found for item in each]
    check = check_records(records, items, mapped)
    kept = check.clean_records()
    if out is not None:
        write_records(out, kept)
    document: dict[str, Any] = {
        "schema_version": 1,
        "train": {"file": str(train_file), "sha256": sha256_file(train_file), "n_records": len(records)},
        "against": [source.described(len(each)) for source, each in zip(sources, found, strict=True)],
        "n_leak_rows": len(check.leak_rows),
        "n_leaked_items": len(check.leaked_items),
        "n_clean_items": len(items) - len(check.leaked_items),
        "leaks": [pair.model_dump() for pair in check.leaks],
        "near": [pair.model_dump() for pair in check.near],
        "out": None if out is None else {"file": str(out), "n_records": len(kept)},
        "seconds": round(time.monotonic() - started, 3),
    }
    if as_json:
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(check, document)
    raise SystemExit(LEAK_EXIT_CODE if fail_on_leak and check.leaks else 0)


def _train_file(path: Path) -> Path:
    from rdagent_ft.cli.eval_sources import check_data_file
    from rdagent_ft.data.data_files import local_path

    file = local_path(str(path))
    check_data_file(file)
    return file


def _check_out(out: Path, inputs: list[Path]) -> None:
    from rdagent_ft.errors import UserError

    if out.resolve() in {path.resolve() for path in inputs}:
        raise UserError(f"--out {str(out)!r} is one of the files to read", hint="write to a new file")
    if out.suffix.lower() not in {".jsonl", ".json", ".csv"}:
        raise UserError(f"--out {str(out)!r} has no known ending", hint="use .jsonl, .json or .csv")


def _print(check: FileCheck, document: dict[str, Any]) -> None:
    for pair in (*check.leaks, *check.near):
        print("\n".join(_lines(pair)))
    n_items = sum(source["n_items"] for source in document["against"])
    print(
        f"{document['n_leak_rows']:,} of {document['train']['n_records']:,} rows leak "
        f"{document['n_leaked_items']:,} of {n_items:,} items; {len(check.near):,} nearly equal pairs"
    )
    if document["out"] is not None:
        print(f"{document['out']['n_records']:,} rows written to {document['out']['file']}")


def _lines(pair: Pair) -> list[str]:
    share = f"{pair.coverage:.0%} of its own {'3' if pair.reason == 'near' else '13'}-grams"
    facts = [_REASONS[pair.reason]]
    if pair.reason in {"coverage", "run", "near"}:
        facts.append(share)
    if pair.run_words:
        facts.append(f"run of {pair.run_words} words")
    if pair.answer_attached:
        facts.append("answer attached")
    kind = "near" if pair.reason == "near" else "leak"
    return [
        f"{kind}: {pair.row} <- {pair.item}: {', '.join(facts)}",
        f"  row:  {pair.row_text}",
        f"  item: {pair.item_text}",
    ]
