"""`rdagent-ft export`: a run's model as adapter, in 16 or 4 bits, or as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rdagent_ft.cli.options import AsJson, EnvFile, Executor

if TYPE_CHECKING:
    from rdagent_ft.engine.exporting import Exporter
    from rdagent_ft.training.export_plan import GgufType

RunName = Annotated[str, typer.Argument(help="Run id, unique beginning of one, or `latest`.")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder for the forms' folders; by default RUN/formats.")
]
GgufKind = Annotated[
    Literal["f32", "f16", "bf16", "q8_0"], typer.Option("--gguf-type", help="How GGUF stores weights.")
]


def export(
    run: RunName = "latest",
    form: Annotated[
        Literal["adapter", "merged_16bit", "merged_4bit", "gguf", "all"],
        typer.Option("--format", help="What to make; `all` makes what this machine can."),
    ] = "all",
    out: OutFolder = None,
    gguf_type: GgufKind = "f16",
    executor: Executor = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a finished run's model in the forms that people load, each with a card and a manifest.

    `merged_4bit` needs a GPU and bitsandbytes, `gguf` llama.cpp's converter (FT_LLAMA_CPP or PATH).
    """
    import json
    import sys

    from rdagent_ft.engine.exporting import LeftOut

    exporter = open_exporter(run, out, gguf_type, executor, env_file)
    done = exporter.export_all() if form == "all" else [exporter.export(form)]
    documents: list[dict[str, object]] = []
    for item in done:
        if isinstance(item, LeftOut):
            hint = f" ({item.reason.hint})" if item.reason.hint else ""
            print(f"{item.form}: left out: {item.reason.message}{hint}", file=sys.stderr)
            continue
        documents.append({"folder": str(item.folder), **item.manifest.model_dump(mode="json")})
        if not as_json:
            size = f"{item.manifest.n_bytes / 2**20:,.1f} MiB"
            print(f"{item.form}: {item.folder} ({size}{'' if item.is_new else ', was there already'})")
            for note in item.manifest.notes:
                print(f"  {note}")
    if as_json:
        print(json.dumps({"schema_version": 1, "exports": documents}, indent=2, ensure_ascii=False))


def open_exporter(
    run: str, out: Path | None, gguf_type: GgufType, executor: str | None, env_file: Path | None
) -> Exporter:
    """Find the run and return what exports it; jobs run with the run's own executor unless one is named."""
    import sys

    from rdagent_ft.engine.exporting import Exporter
    from rdagent_ft.reporting.read import find_run, open_run
    from rdagent_ft.settings_sources import load_settings

    run_dir = find_run(load_settings(env_file=env_file).settings.file_path / "output", run)
    of_run = {"executor": open_run(run_dir).settings.get("executor")}
    stored = {name: value for name, value in of_run.items() if value is not None}
    settings = load_settings({"executor": executor}, env_file=env_file, stored=stored).settings

    def notice(text: str) -> None:
        print(text, file=sys.stderr)

    return Exporter(run_dir, out, settings, gguf_type, notice)
