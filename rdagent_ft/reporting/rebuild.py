"""Compare a rebuilt run with what the original recorded: `python -m rdagent_ft.reporting.rebuild`.

Called by `reproduce.sh`. `base MODEL FINGERPRINT` checks a local base model before anything is
trained: exit 0 when it is the same or has to be fetched by name, 2 when it is another one.
`compare EXPECTED.json RUN.json` exits 0: equal weights; 1: same inputs, other weights; 2: data, base
model or recipe differ, or the run left no weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rdagent_ft.data.model_folder import read_model_folder
from rdagent_ft.errors import RdagentFtError, UserError
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.view import RunView

USAGE = (
    "usage: python -m rdagent_ft.reporting.rebuild base MODEL FINGERPRINT | compare EXPECTED.json RUN.json"
)
INPUT_WORDS = {"dataset": "data", "base": "base model", "recipe": "recipe"}


def compare_rebuild(expected: dict[str, Any], view: RunView) -> tuple[int, list[str]]:
    """Return the exit code and one line for each thing compared."""
    found = rebuilt_facts(view)
    lines: list[str] = []
    for key, word in INPUT_WORDS.items():
        same = expected.get(key) == found[key]
        lines.append(f"{'same' if same else 'DIFFERENT'} {word}")
    if any(line.startswith("DIFFERENT") for line in lines):
        return 2, [*lines, "the rebuilt model was made from something else and cannot be compared"]
    if found["weights"] is None:
        return 2, [*lines, "the rebuilt run left no weights"]
    if expected.get("weights") == found["weights"]:
        return 0, [*lines, f"same weights: {found['weights']}"]
    return 1, [
        *lines,
        "DIFFERENT weights: the same recipe, data and base gave other bytes.",
        "That is usual on another device, thread count or package version; compare the scores instead.",
        f"expected {expected.get('weights')}",
        f"found    {found['weights']}",
    ]


def rebuilt_facts(view: RunView) -> dict[str, Any]:
    """Return what is compared: file hashes, fingerprint, recipe hash and weights of loop 0."""
    prepare, loop = view.prepare, view.loop(0)
    return {
        "dataset": [file.sha256 for file in prepare.dataset.files] if prepare else None,
        "base": prepare.model.fingerprint if prepare else None,
        "recipe": loop.propose.recipe_hash if loop else None,
        "weights": loop.train.weights_sha256 if loop and loop.train else None,
    }


def check_base(model: str, fingerprint: str) -> tuple[int, str]:
    """Return the exit code and a line about the base model at `model`."""
    path = Path(model)
    if not path.is_dir():
        return 0, f"the base model {model!r} is found by name; its fingerprint is compared after the run"
    found = read_model_folder(model, path).fingerprint
    if found != fingerprint:
        return 2, f"reproduce: {model!r} is another base model: fingerprint {found}, expected {fingerprint}"
    return 0, f"same base model: {model}"


def main(argv: list[str]) -> int:
    """Do what the first word says; return the exit code."""
    try:
        match argv:
            case ["base", model, fingerprint]:
                code, line = check_base(model, fingerprint)
                lines = [line]
            case ["compare", expected_name, document_name]:
                expected, document = _read_object(Path(expected_name)), _read_object(Path(document_name))
                code, lines = compare_rebuild(expected, open_run(Path(str(document.get("run_dir", "")))))
            case _:
                raise UserError(USAGE)
    except RdagentFtError as error:
        sys.stderr.write(error.render() + "\n")
        return error.exit_code
    (sys.stderr if code == 2 else sys.stdout).write("\n".join(lines) + "\n")
    return code


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
