"""`reproduce.sh`: a POSIX script that trains the winning recipe again and compares the weights.

It checks the inputs first (SHA-256 of local data files, fingerprint of a local base model), then
runs one loop with the winning recipe, then compares data, base model, recipe and weights with what
this run recorded (`rebuild.py`). The command line of the whole run for the report is made here too.
Everything is quoted with `shlex`.
"""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath
from typing import Any

from rdagent_ft.data.rows import DatasetSource
from rdagent_ft.reporting.records import PrepareOutput
from rdagent_ft.reporting.text import display_name, one_line
from rdagent_ft.reporting.view import LoopView, RunView
from rdagent_ft.values import canonical_json

SETTINGS_THAT_MATTER = (
    "seed",
    "val_items",
    "test_items",
    "dev_items",
    "target_benchmark",
    "equivalence_margin",
    "allow_cpu",
)
"""Settings that change splits, data or weights; the rest is left to the machine that rebuilds."""

_FUNCTIONS = r"""
check() {
    # check FILE SHA256: stop when the file is missing or another one.
    if [ ! -f "$1" ]; then
        echo "reproduce: $1 is missing; set DATASET to where the data is" >&2
        exit 2
    fi
    if command -v sha256sum >/dev/null 2>&1; then sum=$(sha256sum <"$1"); else sum=$(shasum -a 256 <"$1"); fi
    if [ "${sum%% *}" != "$2" ]; then
        echo "reproduce: $1 is not the file of the original run (SHA-256 differs)" >&2
        exit 2
    fi
    echo "same data: $1"
}
"""


def reproduce_script(view: RunView) -> str:
    """Return the script for the leading loop; without one, a script that says so and exits 2."""
    loop, prepare = view.loop(view.best_loop), view.prepare
    run_id = one_line(view.run_id, 80)
    head = ["#!/bin/sh", f"# Trains the winning model of run {run_id} again and compares the weights."]
    if loop is None or prepare is None or loop.propose.recipe is None or loop.train is None:
        lines = [
            *head,
            "set -eu",
            'echo "reproduce: this run accepted no model, there is nothing to rebuild" >&2',
        ]
        return "\n".join([*lines, "exit 2", ""])
    return "\n".join([*head, *_body(view, loop, prepare)])


def run_command(view: RunView) -> str:
    """Return the command that repeats the whole run, with a placeholder for folders of this machine."""
    words = [
        "python",
        "rdagent_ft/loop.py",
        "--dataset",
        _shareable(str(view.request.get("dataset") or "DATASET")),
    ]
    if view.request.get("model"):
        words += ["--model", _shareable(str(view.request["model"]))]
    words += _column_words(view.request.get("columns"))
    if view.request.get("recipe") is not None:
        words += ["--recipe", "path/to/recipe.json"]
    benchmarks: Any = view.request.get("benchmarks")
    if isinstance(benchmarks, list) and benchmarks:
        words += ["--benchmark", ",".join(_shareable(str(name)) for name in benchmarks)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    bounds = view.invocations[-1].bounds if view.invocations else {}
    for name in ("loop_n", "step_n", "timeout"):
        if bounds.get(name) is not None:
            words += [f"--{name}", str(bounds[name])]
    settings = _settings_words(view)
    return one_line(" ".join([*settings, *(shlex.quote(one_line(word, 300)) for word in words)]), 2_000)


def _body(view: RunView, loop: LoopView, prepare: PrepareOutput) -> list[str]:
    recipe = canonical_json(loop.propose.recipe)
    expected = {
        "dataset": [file.sha256 for file in prepare.dataset.files],
        "base": prepare.model.fingerprint,
        "recipe": loop.propose.recipe_hash,
        "weights": loop.train.weights_sha256 if loop.train else None,
    }
    columns = " ".join(shlex.quote(word) for word in _column_words(view.request.get("columns")))
    return [
        "# Run it from the checkout of rdagent_ft in its environment, or set RDAGENT_FT to the checkout.",
        "# DATASET and MODEL name other places of the same data and base model.",
        f"# Written by rdagent_ft {one_line(view.code_version, 40)}.",
        "# Equal weights need the same package versions, device and thread count. Anything else gives a",
        "# model that is equally good on average, and the last line says that the weights differ.",
        "set -eu",
        'repository=${RDAGENT_FT:-.}',
        'python=${PYTHON:-python}',
        f"dataset={shlex.quote(prepare.dataset.name)}",
        f"model={shlex.quote(prepare.model.name)}",
        '[ -z "${DATASET:-}" ] || dataset=$DATASET',
        '[ -z "${MODEL:-}" ] || model=$MODEL',
        'if [ ! -f "$repository/rdagent_ft/loop.py" ]; then',
        '    echo "reproduce: no rdagent_ft/loop.py in $repository; set RDAGENT_FT to the checkout" >&2',
        "    exit 2",
        "fi",
        'PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH}',
        "export PYTHONPATH",
        _FUNCTIONS.strip(),
        *_file_checks(prepare.dataset),
        f'"$python" -m rdagent_ft.reporting.rebuild base "$model" {shlex.quote(prepare.model.fingerprint)}',
        *_exports(view),
        *_container(loop),
        'here=$(CDPATH="" cd -- "$(dirname -- "$0")" && pwd)',
        'mkdir -p "$here/rebuild"',
        "cat >\"$here/rebuild/recipe.json\" <<'END_OF_RECIPE'",
        recipe,
        "END_OF_RECIPE",
        "cat >\"$here/rebuild/expected.json\" <<'END_OF_EXPECTED'",
        canonical_json(expected),
        "END_OF_EXPECTED",
        'echo "training the recipe of loop ' + str(loop.number) + ' again"',
        '"$python" "$repository/rdagent_ft/loop.py" --dataset "$dataset" --model "$model" \\',
        '    --recipe "$here/rebuild/recipe.json" --loop_n 1 --json '
        + (columns + " " if columns else "")
        + '>"$here/rebuild/run.json"',
        '"$python" -m rdagent_ft.reporting.rebuild compare "$here/rebuild/expected.json" \\',
        '    "$here/rebuild/run.json"',
        "",
    ]  # fmt: skip


def _file_checks(dataset: DatasetSource) -> list[str]:
    """Return one `check` a local file. Data from a hub is compared after the run has fetched it."""
    if dataset.kind != "local":
        return ["# The data is fetched by name; its SHA-256 is compared after the run."]
    root = PurePosixPath(dataset.name).name
    return [
        f"check {_inside_dataset(PurePosixPath(file.path), root)} {shlex.quote(file.sha256)}"
        for file in dataset.files
    ]


def _inside_dataset(path: PurePosixPath, root: str) -> str:
    """Return a file as a shell word: `$dataset` and what lies below it, else the recorded path."""
    if not root or root not in path.parts:
        return shlex.quote(str(path))
    below = path.parts[len(path.parts) - path.parts[::-1].index(root) :]
    return '"$dataset"' + (f"/{shlex.quote('/'.join(below))}" if below else "")


def _exports(view: RunView) -> list[str]:
    lines = ["FT_BENCHMARK_DATASETS='[]'  # only the weights are wanted", "export FT_BENCHMARK_DATASETS"]
    for name, text in _settings(view):
        lines.append(f"FT_{name.upper()}={shlex.quote(text)}")
        lines.append(f"export FT_{name.upper()}")
    return lines


def _container(loop: LoopView) -> list[str]:
    """Return lines that ask for containers when the recipe carries a data script: it runs nowhere else."""
    if loop.propose.recipe is None or loop.propose.recipe.data.script is None:
        return []
    return [
        "# The recipe carries a data script (`data.script`); it runs in a container only.",
        "# It makes the same rows again only if it draws nothing at random without a seed.",
        "FT_EXECUTOR=docker",
        "export FT_EXECUTOR",
    ]


def _settings(view: RunView) -> list[tuple[str, str]]:
    found = [(name, view.settings[name]) for name in SETTINGS_THAT_MATTER if name in view.settings]
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in found]


def _settings_words(view: RunView) -> list[str]:
    return [f"FT_SEED={shlex.quote(text)}" for name, text in _settings(view) if name == "seed"]


def _column_words(columns: Any) -> list[str]:
    """Return `--columns a=b,c=d` from the request's mapping or text, or nothing."""
    if isinstance(columns, dict) and columns:
        pairs = ",".join(f"{key}={value}" for key, value in columns.items())  # pyright: ignore[reportUnknownVariableType]
        return ["--columns", pairs]
    return ["--columns", columns] if isinstance(columns, str) and columns else []


def _shareable(name: str) -> str:
    """Return a hub id as it is and a path as `path/to/NAME`."""
    shown = display_name(name)
    return shown if shown == name else f"path/to/{shown}"
