"""`rdagent-ft data decontaminate`: does a training file repeat evaluation items, and which rows do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdagent_ft.cli.options import AsJson, EnvFile

if TYPE_CHECKING:
    from rdagent_ft.data.decontaminate import FileCheck, Pair
    from rdagent_ft.data.eval_items import EvalItem

data_app = typer.Typer(help="Look at training data.", no_args_is_help=True)

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
    """Look at training data."""


@data_app.command()
def decontaminate(
    train: Annotated[Path, typer.Argument(help="Training file: json, jsonl, csv or parquet.")],
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

    from rdagent_ft.cli.invocation import parse_columns
    from rdagent_ft.data.decontaminate import check_records, read_file, write_records

    started = time.monotonic()
    train_file, eval_files = _train_file(train), _eval_files([*against, *(more or [])], env_file)
    if out is not None:
        _check_out(out, [train_file, *eval_files])
    mapped, eval_mapped = parse_columns(columns) or {}, parse_columns(eval_columns) or {}
    records = read_file(train_file)
    items, sizes = _items(eval_files, eval_mapped)
    check = check_records(records, items, mapped)
    kept = check.clean_records()
    if out is not None:
        write_records(out, kept)
    document: dict[str, Any] = {
        "schema_version": 1,
        "train": _described(train_file, "n_records", len(records)),
        "against": [_described(file, "n_items", sizes[file]) for file in eval_files],
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
    from rdagent_ft.data.data_files import local_path

    file = local_path(str(path))
    _check_data_file(file)
    return file


def _eval_files(names: list[str], env_file: Path | None) -> list[Path]:
    """Return the files that names mean: a path first, then the benchmark of that name."""
    from rdagent_ft.data.data_files import local_path, path_exists
    from rdagent_ft.errors import UserError
    from rdagent_ft.evaluation.benchmarks import find_benchmark
    from rdagent_ft.settings_sources import load_settings

    files: list[Path] = []
    file_path: Path | None = None
    for name in names:
        path = local_path(name)
        if not path_exists(path):
            file_path = file_path or load_settings(env_file=env_file).settings.file_path
            found = find_benchmark(name, file_path)
            if found is None:
                raise UserError(
                    f"{name!r} is not a file, and no benchmark of this name lies under {str(file_path)!r}",
                    hint="name a json, jsonl, csv or parquet file",
                )
            path = found.path
        _check_data_file(path)
        if path not in files:
            files.append(path)
    return files


def _check_data_file(path: Path) -> None:
    from rdagent_ft.data.data_files import DATA_SUFFIXES, path_exists
    from rdagent_ft.errors import UserError

    known = f"name a file that ends in {', '.join(DATA_SUFFIXES)}"
    if not path_exists(path) or not path.is_file():
        raise UserError(f"{str(path)!r} is not a file", hint=known)
    if path.suffix.lower() not in DATA_SUFFIXES:
        raise UserError(f"{str(path)!r} is not a data file", hint=known)


def _check_out(out: Path, inputs: list[Path]) -> None:
    from rdagent_ft.errors import UserError

    if out.resolve() in {path.resolve() for path in inputs}:
        raise UserError(f"--out {str(out)!r} is one of the files to read", hint="write to a new file")
    if out.suffix.lower() not in {".jsonl", ".json", ".csv"}:
        raise UserError(f"--out {str(out)!r} has no known ending", hint="use .jsonl, .json or .csv")


def _items(files: list[Path], columns: dict[str, str]) -> tuple[list[EvalItem], dict[Path, int]]:
    from rdagent_ft.data.decontaminate import read_file
    from rdagent_ft.data.eval_files import eval_items

    items: list[EvalItem] = []
    sizes: dict[Path, int] = {}
    for file in files:
        found = eval_items(read_file(file), file.name, columns)
        sizes[file] = len(found)
        items += found
    return items, sizes


def _described(file: Path, what: str, n: int) -> dict[str, Any]:
    from rdagent_ft.values import sha256_file

    return {"file": str(file), "sha256": sha256_file(file), what: n}


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
