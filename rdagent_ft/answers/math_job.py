"""Runs in a scoring child only: math-verify on one pair of answers a line.

math-verify stops itself with signals, which works in the main thread of a process alone; here that
is the whole process. A request is {"gold"} or {"gold", "answer"}.
"""
# pyright: basic

from __future__ import annotations

import re
from typing import Any

from rdagent_ft.execution.line_server import serve

MAX_MEMORY_BYTES = 4 << 30
_MARKED = re.compile(r"(?<!\\)\$|\\boxed")
CPU_LIMIT_S = 30.0


def main() -> None:
    """Serve until standard input ends."""
    # `verify` of something trivial imports what sympy loads late.
    answer({"gold": "1", "answer": "$1$"})
    serve(answer, max_memory_bytes=MAX_MEMORY_BYTES, cpu_s=CPU_LIMIT_S)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return {"gold_ok"} and, for an answer, {"parsed", "equal"}: its text form and the verdict."""
    from math_verify import parse, verify

    gold = parse(_as_math(request["gold"]))
    if not gold:
        return {"gold_ok": False}
    if "answer" not in request:
        return {"gold_ok": True}
    found = parse(request["answer"])
    if not found:
        return {"gold_ok": True, "parsed": None, "equal": False}
    # The last part is the text that was parsed; the first is a sympy object whose str may be huge.
    texts = [part for part in found if isinstance(part, str)]
    return {
        "gold_ok": True,
        "parsed": (texts[-1] if texts else type(found[0]).__name__)[:2000],
        "equal": bool(verify(gold, found)),
    }


def _as_math(text: str) -> str:
    """Return a bare reference as LaTeX maths, so that the LaTeX parser sees it."""
    return text if _MARKED.search(text) else f"\\boxed{{{text}}}"


if __name__ == "__main__":
    main()
