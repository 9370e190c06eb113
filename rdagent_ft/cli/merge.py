"""`rdagent-ft merge`: put an adapter into the weights of its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rdagent_ft.cli.options import EnvFile, Executor


def merge(
    base: Annotated[Path, typer.Option("--base", help="Folder of the base model, in full precision.")],
    adapter: Annotated[Path, typer.Option("--adapter", help="Folder of the LoRA adapter.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the merged model.")],
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"],
        typer.Option("--dtype", help="How the weights are stored; the merge itself is always fp32."),
    ] = "float32",
    executor: Executor = None,
    env_file: EnvFile = None,
) -> None:
    """Merge a LoRA adapter into its base and prove in fp32 that both answer alike.

    The job runs as a local subprocess unless `--executor docker` is given.
    """
    import sys

    from rdagent_ft.engine.merging import merge_folders
    from rdagent_ft.settings_sources import load_settings

    settings = load_settings({"executor": executor or "local"}, env_file=env_file).settings

    def notice(text: str) -> None:
        print(text, file=sys.stderr)

    result = merge_folders(base, adapter, out, dtype, settings, notice)
    print(
        f"merged in fp32, logits differ by at most {result.max_abs_diff:.1e} on {result.n_prompts} prompts; "
        f"stored as {result.dtype}"
    )
    print(out)
