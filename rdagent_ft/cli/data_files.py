"""`rdagent-ft data prepare`, `audit` and `split`: training files of a dataset, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdagent_ft.cli.options import AsJson, EnvFile

if TYPE_CHECKING:
    from rdagent_ft.data.parts import PartsManifest
    from rdagent_ft.data.rows import DatasetSource

Name = Annotated[
    str, typer.Argument(metavar="FILE|NAME", help="Data file, folder, registered name or hub id.")
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the parts and manifest.json; new or an earlier one.")
]
Seed = Annotated[int, typer.Option("--seed", help="Decides order, limit and split; same seed, same files.")]
Columns = Annotated[str | None, typer.Option("--columns", help="Columns, e.g. prompt=text,completion=label.")]


def prepare(
    name: Name,
    out: Out,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl, alpaca, sharegpt, messages, vertex, prompt_completion, prompt_response, text_pair; "
            "for preferences trl, pairs or kto.",
        ),
    ] = "trl",
    limit: Annotated[
        int | None, typer.Option("--limit", min=3, help="Use so many rows, drawn at random.")
    ] = None,
    seed: Seed = 42,
    split: Annotated[
        str, typer.Option("--split", help="Shares of train, validation and test.")
    ] = "0.85/0.10/0.05",
    schema: Annotated[
        Path | None, typer.Option("--schema", help="JSON Schema that every answer must fit.")
    ] = None,
    drop_invalid: Annotated[
        bool, typer.Option("--drop-invalid", help="Leave out answers that do not fit, instead of stopping.")
    ] = False,
    think: Annotated[
        str, typer.Option("--think", help="wrap: a <think> block before every answer; strip: none; none.")
    ] = "none",
    think_column: Annotated[
        str | None, typer.Option("--think-column", help="Column with the thoughts for --think wrap.")
    ] = None,
    columns: Columns = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Write train, validation and test files of a dataset in a trainer's format."""
    from typing import get_args

    from rdagent_ft.cli.columns_option import parse_columns
    from rdagent_ft.data.formats import PREFERENCE_FORMATS, ROW_FORMATS
    from rdagent_ft.data.json_schema import parse_json_schema
    from rdagent_ft.data.prepare import PrepareOptions, prepare_dataset

    thinks: tuple[str, ...] = get_args(PrepareOptions.model_fields["think"].annotation)
    options = PrepareOptions(
        form=_one_of("--format", form, (*ROW_FORMATS, *PREFERENCE_FORMATS)),
        limit=limit,
        seed=seed,
        split=split,
        think=_one_of("--think", think, thinks),
        think_column=think_column,
        drop_invalid=drop_invalid,
    )
    checked = None if schema is None else parse_json_schema(_text_of(schema))
    mapped = parse_columns(columns)
    _show(prepare_dataset(_source(name, env_file), out, options, mapped, checked), out, as_json=as_json)


def split(
    name: Name,
    out: Out,
    shares: Annotated[
        str, typer.Option("--split", help="Shares of train and validation, or of train, validation and test.")
    ] = "0.9/0.1",
    seed: Seed = 42,
    columns: Columns = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Split a file as it is; what says nearly the same stays in one part."""
    from rdagent_ft.cli.columns_option import parse_columns
    from rdagent_ft.data.split_records import split_dataset

    mapped = parse_columns(columns)
    _show(
        split_dataset(_source(name, env_file), out, shares, seed=seed, columns=mapped), out, as_json=as_json
    )


def audit(
    name: Name,
    model: Annotated[
        Path | None, typer.Option("--model", help="Model folder whose tokens are counted; words without it.")
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=8, help="Length from which a row would be cut.")
    ] = 1024,
    columns: Columns = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Count what is in a dataset: lengths, duplicates, labels, languages, personal data, dropped rows."""
    import json

    from rdagent_ft.cli.columns_option import parse_columns
    from rdagent_ft.data.audit_report import audit_lines
    from rdagent_ft.data.audit_stream import audit_dataset
    from rdagent_ft.data.tokens import load_encoder

    encoder = None if model is None else load_encoder(model)
    found = audit_dataset(
        _source(name, env_file),
        parse_columns(columns),
        encoder=encoder,
        prompt_format="chat" if encoder is not None and encoder.template is not None else "plain",
        max_length=max_length,
    )
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(audit_lines(found)))


def _source(name: str, env_file: Path | None) -> DatasetSource:
    """Return the dataset; settings are read only where the name is no path."""
    from rdagent_ft.data.data_files import local_path, path_exists
    from rdagent_ft.data.resolve import resolve_dataset
    from rdagent_ft.settings_sources import load_settings

    is_local = path_exists(local_path(name))
    return resolve_dataset(name, Path() if is_local else load_settings(env_file=env_file).settings.file_path)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    import difflib

    from rdagent_ft.errors import UserError

    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise UserError(f"{option} {value!r} is not known", hint=hint)


def _text_of(path: Path) -> str:
    from rdagent_ft.errors import UserError

    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"--schema {str(path)!r} cannot be read: {reason}") from None


def _show(manifest: PartsManifest, out: Path, *, as_json: bool) -> None:
    import json

    from rdagent_ft.data.parts import manifest_lines

    if as_json:
        print(json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(manifest_lines(manifest, out)))
