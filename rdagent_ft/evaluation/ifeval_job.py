"""Runs in a scoring child only: lm-eval's IFEval instruction checks on one answer a line.

A request is {"prompt", "instruction_id_list", "kwargs", "response", "seed"}; the reply holds one 0 or
1 an instruction, strict and loose. The checks of keys 1122 and 1129 draw a random letter (their
letter is `#` or `!`), so the generator is seeded before every item, and an item's verdict depends on
nothing but the item.
"""
# pyright: basic

from __future__ import annotations

import random
from typing import Any

from rdagent_ft.execution.line_server import serve

MAX_MEMORY_BYTES = 12 << 30
CPU_LIMIT_S = 60.0


def main() -> None:
    """Serve until standard input ends. Ends with the cause where a package or NLTK data lacks."""
    import langdetect
    import nltk

    nltk.data.find("tokenizers/punkt_tab/english")
    langdetect.DetectorFactory.seed = 0
    # The first call loads the language profiles and the tokenizer, which is no item's time.
    langdetect.detect("This sentence is in English.")
    answer(
        {
            "prompt": "",
            "instruction_id_list": ["length_constraints:number_sentences"],
            "kwargs": [{"num_sentences": 1, "relation": "at least"}],
            "response": "One. Two.",
            "seed": 0,
        }
    )
    serve(answer, max_memory_bytes=MAX_MEMORY_BYTES, cpu_s=CPU_LIMIT_S)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return {"strict": [...], "loose": [...]}, one 0 or 1 an instruction, in order."""
    from lm_eval.tasks.ifeval import utils

    random.seed(request["seed"])
    found: dict[str, Any] = utils.process_results({"key": 0, **request}, [request["response"]])
    return {
        "strict": [int(value) for value in found["inst_level_strict_acc"]],
        "loose": [int(value) for value in found["inst_level_loose_acc"]],
    }


if __name__ == "__main__":
    main()
