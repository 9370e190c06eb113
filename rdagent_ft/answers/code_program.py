"""One Python program out of an answer and its tests; exit 0 means that the tests ran and held.

The answer's code and the tests are texts inside the program, compiled one after the other: an answer
cannot swallow the tests with an open quote. The program chooses among the sources that
`code_extraction` found, in its sandbox. Standard library only. Not covered: an answer that attacks its
tests from inside (an `__eq__` that is always true, replaced builtins); both run in one process, as in
every benchmark of this kind.
"""

from __future__ import annotations

import builtins
import json
import keyword
import re
from collections.abc import Iterable, Sequence

_CALLED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\(")
_DEFINED = re.compile(r"^(?:async def|def|class)\s+(\w+)", re.MULTILINE)
_NOT_NAMES = frozenset(dir(builtins)) | set(keyword.kwlist)

PROGRAM = """\
import ast, json, sys, types

PARTS = json.loads({parts})

def names(tree):
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((item.asname or item.name) for item in node.names)
        elif isinstance(node, ast.Assign):
            found.update(item.id for item in node.targets if isinstance(item, ast.Name))
    return found

def fit(source):
    try:
        found = names(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    return 1 if PARTS["wanted"] is None else len(found.intersection(PARTS["wanted"]))

def beginnings(source):
    lines = source.split("\\n")
    return ("\\n".join(lines[:n]) for n in range(len(lines) - 1, max(0, len(lines) - 200), -1))

def chosen():
    best = max(PARTS["sources"], key=fit, default="")  # the first of equals
    if fit(best):
        return best
    for source in PARTS["sources"]:
        for beginning in beginnings(source):
            if fit(beginning):
                return beginning
    wanted = " or ".join(PARTS["wanted"] or ["anything"])
    raise SystemExit("the answer holds no code that compiles and defines " + wanted)

SOURCE = chosen()
SOLUTION = types.ModuleType("solution")
sys.modules["solution"] = SOLUTION
SPACE = SOLUTION.__dict__
for name, text in (("solution.py", SOURCE), ("tests.py", PARTS["tests"])):
    try:
        exec(compile(text, name, "exec"), SPACE)
    except SystemExit:
        raise RuntimeError("the answer ended the process in " + name) from None
"""


def code_program(sources: Iterable[str], tests: str, wanted: Sequence[str] | None) -> str:
    """Return the program. It takes the first source that compiles and defines most of `wanted`.

    `wanted` None takes the first source that compiles; an empty list fits no source.
    """
    kept = list(dict.fromkeys(filter(str.strip, sources)))
    parts = {"sources": kept, "wanted": None if wanted is None else list(wanted), "tests": tests}
    return PROGRAM.format(parts=repr(json.dumps(parts)))


def called_names(tests: str) -> list[str]:
    """Return every name that the tests call as a function, in order."""
    return list(dict.fromkeys(_CALLED.findall(tests)))


def outside_names(tests: str, *, defined: str) -> list[str]:
    """Return what the tests call and neither Python nor the source `defined` defines, in order."""
    known = _NOT_NAMES | set(_DEFINED.findall(defined))
    return [name for name in called_names(tests) if name not in known]
