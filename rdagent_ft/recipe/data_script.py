"""The recipe's data script as text: does it compile, and how is it named where nobody reads source.

The script is written by an LLM or a person and is never executed here. Running it is the business of a
container (`training/data_script_job.py`), and what it may read and write stands in
`docs/data-scripts.md`.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from rdagent_ft.errors import Problem
from rdagent_ft.values import sha256_text

SCRIPT_KEY = "data.script"
SCRIPT_NAME = "process_data.py"
_CHECK_LIMIT_S = 10.0
_CHECK = """\
import sys, warnings
warnings.simplefilter("ignore")
try:
    compile(sys.stdin.buffer.read(), "process_data.py", "exec", dont_inherit=True)
except SyntaxError as error:
    sys.exit(f"line {error.lineno or 1}: {error.msg}")
except (ValueError, RecursionError, MemoryError) as error:
    sys.exit(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
"""


def script_problems(script: str | None, can_contain: bool | None) -> list[Problem]:
    """Return what keeps a data script from being run; [] without a script.

    Args:
        script: the recipe's `data.script`.
        can_contain: whether jobs run in containers; None means unknown and switches that rule off.
    """
    if script is None:
        return []
    shown, problems = script_words(script), list[Problem]()
    if can_contain is False:
        rule = "is code that must run in a container, and the local executor has none"
        fix = "use --executor docker, or set data.script to null"
        problems.append(Problem(SCRIPT_KEY, shown, rule, "config.needs_container", fix))
    wrong = script_error(script)
    if wrong is not None:
        rule = f"does not compile: {wrong}"
        problems.append(Problem(SCRIPT_KEY, shown, rule, "config.script_syntax", "correct the source"))
    return problems


@lru_cache(maxsize=64)
def script_error(script: str) -> str | None:
    """Return why the source does not compile, or None. Nothing of it is executed.

    Compiling happens in a process of its own: Python's compiler can run out of stack on hostile text,
    and that would end this process. Bytes are compiled, so that a coding line counts as it will later.
    """
    try:
        source = script.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"character {error.start} is no valid text"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHECK],
            input=source,
            capture_output=True,
            timeout=_CHECK_LIMIT_S,
            check=False,
            env={},
        )
    except subprocess.TimeoutExpired:
        return f"the compiler needs more than {_CHECK_LIMIT_S:.0f} s"
    if done.returncode == 0:
        return None
    message = done.stderr.decode("utf-8", "replace").strip()
    return message[:300] if done.returncode == 1 and message else "the compiler gave up on it"


def script_words(script: str) -> str:
    """Return a name for a script: the first digits of its SHA-256 and its length."""
    return f"script {sha256_text(script)[:12]} ({len(script):,} characters)"


def shown_value(key: str, value: object) -> object:
    """Return a recipe value as tables show it: a script by its name, everything else as it is."""
    return script_words(value) if key == SCRIPT_KEY and isinstance(value, str) else value
