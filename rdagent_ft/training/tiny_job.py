# pyright: basic
"""Makes a tiny random model: `python -m rdagent_ft.training.tiny_job --spec spec.json`.

The spec holds `out` (folder), `texts` (JSON lines file with a `text` column) and any keyword of
`tiny.make_tiny_model`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rdagent_ft.training.job_files import read_rows
from rdagent_ft.training.tiny import make_tiny_model


def main() -> None:
    """Read the spec and make the model."""
    parser = argparse.ArgumentParser(description="Make a tiny random Qwen3 with its tokenizer.")
    parser.add_argument("--spec", type=Path, required=True)
    spec = json.loads(parser.parse_args().spec.read_text(encoding="utf-8"))
    rows = read_rows(Path(spec.pop("texts")), ("text",))
    make_tiny_model(Path(spec.pop("out")), (row["text"] for row in rows), **spec)


if __name__ == "__main__":
    main()
