"""The entry: `python rdagent_ft/loop.py --dataset … --model …` is `rdagent-ft run …`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    """Run the `run` verb with the given arguments (default: the command line's)."""
    from rdagent_ft.cli.main import main as cli_main

    cli_main(["run", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    # Python put this file's folder on the path, where our `data`, `llm`, … would shadow other
    # packages. The repository's root belongs there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    try:
        main()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rdagent_ft"):
            raise
        print(  # noqa: T201
            f"error: the Python package {error.name!r} is missing in {sys.executable}\n"
            "hint: run `make install` once, then `.venv/bin/python rdagent_ft/loop.py …`",
            file=sys.stderr,
        )
        raise SystemExit(3) from None
