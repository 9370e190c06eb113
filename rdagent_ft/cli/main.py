"""The table of verbs, and the one place where errors become messages and exit codes.

Verbs import what they need inside their function, so that `--help` stays fast.
"""

from __future__ import annotations

import os
import sys

import typer

from rdagent_ft import __version__
from rdagent_ft.cli.benchmark import benchmark
from rdagent_ft.cli.compare import compare
from rdagent_ft.cli.config import config_app
from rdagent_ft.cli.data import data_app
from rdagent_ft.cli.demo import demo
from rdagent_ft.cli.doctor import doctor
from rdagent_ft.cli.export import export
from rdagent_ft.cli.gc import gc
from rdagent_ft.cli.images import images_app
from rdagent_ft.cli.merge import merge
from rdagent_ft.cli.publish import publish
from rdagent_ft.cli.report import report
from rdagent_ft.cli.resume import resume
from rdagent_ft.cli.run import run
from rdagent_ft.cli.status import status
from rdagent_ft.cli.validate import validate
from rdagent_ft.errors import RdagentFtError

app = typer.Typer(
    name="rdagent-ft",
    help="Autonomous fine-tuning of open language models, with claims that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(resume)
app.command()(status)
app.command()(report)
app.command()(validate)
app.command()(benchmark)
app.command()(compare)
app.command()(merge)
app.command()(export)
app.command()(publish)
app.command()(demo)
app.command()(doctor)
app.command()(gc)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(images_app, name="images")


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Autonomous fine-tuning of open language models, with claims that can be trusted."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; never returns. User mistakes print one message, bugs their traceback."""
    try:
        app(args=argv)
    except RdagentFtError as error:
        print(error.render(), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of a pipe went away (`… | head`): silence the interpreter's own complaint too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
