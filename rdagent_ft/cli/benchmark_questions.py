"""The questions of `rdagent-ft benchmark` without options: model, base, backend, suite, batch size.

Questions go to stderr, so that `--json` stays one document; Enter takes what is in brackets.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from rdagent_ft.cli.benchmark_plan import Asked
from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.results.local_models import LocalModel, describe_model, find_models
from rdagent_ft.evaluation.results.plan import BATCH_SIZES
from rdagent_ft.evaluation.suites import SUITE_NAMES, load_suite
from rdagent_ft.settings_sources import load_settings

_MOST_TRIES = 5


def ask_for_all(asked: Asked) -> Asked:
    """Return the options with the answers. Raises `EOFError` at the end of input."""
    found = find_models(load_settings(env_file=asked.env_file).settings.file_path, Path.cwd())
    model = _ask_model(found)
    base, no_base = _ask_base(model)
    backends = {
        "hf": "hf: load the model here",
        "server": "server: ask a server that loads it",
        "vllm": "vllm: load the model here with vLLM (needs FT_SERVE_PYTHON)",
    }
    backend = list(backends)[_choose("Backend", list(backends.values()), 0)]
    suites = [load_suite(name) for name in SUITE_NAMES]
    lines = [f"{suite.title}: {suite.n_requests:,} answers a model; {suite.purpose}" for suite in suites]
    suite = SUITE_NAMES[_choose("Suite", lines, 1)]
    sizes = [str(size) for size in BATCH_SIZES]
    batch_size = BATCH_SIZES[_choose("Batch size (less needs less memory)", sizes, BATCH_SIZES.index(8))]
    return replace(
        asked,
        model=model.path,
        base=base,
        no_base=no_base,
        backend=backend,
        suite=suite,
        batch_size=batch_size,
    )


def _ask_model(found: list[LocalModel]) -> LocalModel:
    _say("Model" if found else "Model: none was found under FT_FILE_PATH/output or ./outputs")
    for number, model in enumerate(found, start=1):
        _say(f"  {number}  {model.path} ({model.kind})")
    for _ in range(_MOST_TRIES):
        answer = _answer("number or folder" + (" [1]" if found else ""))
        if not answer and found:
            return found[0]
        if answer.isdecimal() and 1 <= int(answer) <= len(found):
            return found[int(answer) - 1]
        if answer and (model := describe_model(Path(answer))) is not None:
            return model
        _say(f"{answer!r} holds no model: a folder with config.json or adapter_config.json is wanted")
    raise UserError("no model was chosen", hint="name it: rdagent-ft benchmark MODEL")


def _ask_base(model: LocalModel) -> tuple[Path | None, bool]:
    """Return (folder of the base model, whether it is left unscored)."""
    if not _yes("Compare with the base model? (recommended)"):
        return None, True
    if model.base is not None:
        return model.base, False
    for _ in range(_MOST_TRIES):
        answer = _answer("folder of the base model")
        described = describe_model(Path(answer)) if answer else None
        if described is not None and described.kind == "model":
            return described.path, False
        _say(f"{answer!r} holds no model: a folder with config.json is wanted")
    raise UserError("no base model was chosen", hint="name it with --base DIR, or say --no-base")


def _choose(title: str, lines: list[str], default: int) -> int:
    _say(title)
    for number, line in enumerate(lines, start=1):
        _say(f"  {number}  {line}")
    for _ in range(_MOST_TRIES):
        answer = _answer(f"number [{default + 1}]")
        if not answer:
            return default
        if answer.isdecimal() and 1 <= int(answer) <= len(lines):
            return int(answer) - 1
        _say(f"{answer!r} is no number from 1 to {len(lines)}")
    raise UserError(f"{title}: no choice was made")


def _yes(question: str) -> bool:
    for _ in range(_MOST_TRIES):
        answer = _answer(f"{question} [Y/n]").lower()
        if answer in ("", "y", "yes"):
            return True
        if answer in ("n", "no"):
            return False
        _say("answer y or n")
    raise UserError(f"{question}: no answer")


def _answer(question: str) -> str:
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
