"""`rdagent-ft publish`: a run's model and its card as a repository of the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rdagent_ft.cli.export import GgufKind, OutFolder, RunName
from rdagent_ft.cli.options import AsJson, EnvFile, Executor

if TYPE_CHECKING:
    from rdagent_ft.engine.publishing import PublishPlan


def publish(
    run: RunName,
    repo: Annotated[str, typer.Option("--repo", help="Repository to publish to, as ORG/NAME.")],
    form: Annotated[
        Literal["adapter", "merged_16bit", "merged_4bit", "gguf"] | None,
        typer.Option("--format", help="What to publish; by default the adapter, else merged_16bit."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; without this it is private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show each file and the card; nothing is sent.")
    ] = False,
    out: OutFolder = None,
    gguf_type: GgufKind = "f16",
    executor: Executor = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Publish a finished run's model: weights first, the card last. The token comes from HF_TOKEN.

    A repository with a README.md that this program did not write is left alone.
    """
    import json
    import sys

    from rdagent_ft.cli.export import open_exporter
    from rdagent_ft.data.hub_upload import hub_token
    from rdagent_ft.engine.publishing import check_repo, plan_publication
    from rdagent_ft.engine.publishing import publish as send

    check_repo(repo)
    if not dry_run:
        hub_token()  # asked before minutes of work
    exporter = open_exporter(run, out, gguf_type, executor, env_file)
    chosen = form or ("merged_16bit" if exporter.source.adapter is None else "adapter")
    plan = plan_publication(exporter, exporter.export(chosen), repo, private=not public)
    if dry_run and as_json:
        print(json.dumps({**plan.model_dump(mode="json"), "sent": False}, indent=2, ensure_ascii=False))
    elif dry_run:
        show_plan(plan)
    else:
        address = send(plan, lambda text: print(text, file=sys.stderr))
        document = {**plan.model_dump(mode="json"), "sent": True, "address": address}
        print(json.dumps(document, indent=2, ensure_ascii=False) if as_json else address)


def show_plan(plan: PublishPlan) -> None:
    """Print what would be sent, in order, and the whole card."""
    print(f"dry run: nothing is sent. {'Private' if plan.private else 'Public'} repository {plan.repo_id}")
    for file in (*plan.files, plan.card_file):
        print(f"{file.n_bytes:>14,} bytes  {file.sha256}  {file.path}")
    print()
    print(plan.card, end="")
