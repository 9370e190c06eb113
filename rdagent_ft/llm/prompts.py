"""Loads the prompts in `prompts/`: one Jinja2 file each, with its variables and its reply named.

A file is YAML front matter (`purpose`, `variables`, `reply`) and two blocks, `system` and `user`. A
prompt with a missing, unknown or undeclared variable is an error of ours and is found by a test that
sweeps over all files. Values are text, never templates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from jinja2 import Environment, StrictUndefined, meta

from rdagent_ft.errors import RdagentFtError
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen, sha256_text

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.S)
_SECTIONS: tuple[Literal["system", "user"], ...] = ("system", "user")


class PromptError(RdagentFtError):
    """A prompt file or the values for it are wrong. A bug of the program, not of its user."""


class PromptSpec(Frozen):
    """What a prompt file declares: why it exists, what it needs, which reply it asks for."""

    purpose: str
    variables: tuple[str, ...]
    reply: str


def prompt_names() -> tuple[str, ...]:
    """Return the names of all shipped prompts."""
    return tuple(sorted(path.name.removesuffix(".j2") for path in shipped_folder("prompts").glob("*.j2")))


def read_prompt(name: str, folder: Path | None = None) -> tuple[PromptSpec, str]:
    """Return a prompt's declaration and its template text. Raises `PromptError`."""
    path = (folder or shipped_folder("prompts")) / f"{name}.j2"
    try:
        match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PromptError(f"no prompt {name!r} in {path.parent}") from None
    if match is None:
        raise PromptError(f"{path} does not start with front matter between two lines `---`")
    spec = PromptSpec.model_validate(yaml.safe_load(match[1]))
    body = match[2]
    used = meta.find_undeclared_variables(_environment().parse(body))
    if used != set(spec.variables):
        raise PromptError(
            f"{path}: the front matter declares {sorted(spec.variables)}, the text uses {sorted(used)}"
        )
    return spec, body


def render_prompt(name: str, *, folder: Path | None = None, **values: Any) -> tuple[LlmMessage, ...]:
    """Return the messages of a prompt: its `system` and `user` blocks, in this order, if not empty.

    Raises `PromptError` naming every missing and every unknown variable.
    """
    spec, body = read_prompt(name, folder)
    missing = sorted(set(spec.variables) - set(values))
    unknown = sorted(set(values) - set(spec.variables))
    if missing or unknown:
        raise PromptError(f"prompt {name!r}: missing variables {missing}, unknown variables {unknown}")
    template = _environment().from_string(body)
    messages: list[LlmMessage] = []
    for section in _SECTIONS:
        block = template.blocks.get(section)
        if block is None:
            continue
        text = "".join(cast(Sequence[str], block(template.new_context(values)))).strip()
        if text:
            messages.append(LlmMessage(role=section, content=text))
    if not messages:
        raise PromptError(f"prompt {name!r} has neither a `system` nor a `user` block")
    return tuple(messages)


def delimited(label: str, text: str, *, salt: str, max_chars: int = 20_000) -> str:
    """Return foreign text between marks that it cannot contain; long text loses its middle.

    The mark's number is a hash over the text and `salt` (seed and loop): the same call gives the
    same prompt, and whoever wrote the text cannot close the mark in it.
    """
    if len(text) > max_chars:
        head, tail = max_chars * 2 // 3, max_chars // 3
        text = f"{text[:head]}\n[{len(text) - head - tail} characters left out]\n{text[-tail:]}"
    nonce = sha256_text(f"{salt}\n{text}")[:12]
    while nonce in text:
        nonce = sha256_text(nonce)[:12]
    return f"<<{label} {nonce}>>\n{text}\n<<end of {label} {nonce}>>"


def _environment() -> Environment:
    # No HTML here: escaping would change the text that the model reads.
    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
