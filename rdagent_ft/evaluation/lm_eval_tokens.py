# pyright: basic
"""How a prompt becomes token ids in every lm-eval job, whichever backend generates.

Standard library only: each backend brings its own tokenizer.
"""

from __future__ import annotations

from typing import Any


def prompt_tokens(tokenizer: Any, prompt: str, *, add_special: bool) -> list[int]:
    """Return the prompt's token ids as training has them; `add_special` for the `plain` format."""
    ids = tokenizer(prompt, add_special_tokens=add_special)["input_ids"]
    if add_special and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        bare = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if not bare or bare[-1] != ids[-1]:
            ids = ids[:-1]  # this tokenizer closes every text with EOS; an answer must follow
    return ids
