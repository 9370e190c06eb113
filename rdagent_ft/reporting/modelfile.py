"""The Ollama Modelfile of a GGUF model: template, stop tokens and decoding, from the model's own files.

Ollama writes templates in Go's language, models carry Jinja. The Jinja template is asked what it puts
around each role, a Go template is composed from that, and both are compared on several conversations:
only a template that gives the same text every time is written. Templates that rewrite contents, number
turns or insert dates are not expressed; the caller is told.
Source of the format: Ollama's docs `modelfile.md` and `template.md`.
"""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rdagent_ft.data.chat_template import render_chat
from rdagent_ft.data.rows import Message
from rdagent_ft.data.tokens import TextEncoder, load_encoder
from rdagent_ft.errors import DataError
from rdagent_ft.values import Frozen

if TYPE_CHECKING:
    from rdagent_ft.data.rows import Role

_CONTENTS = ("\x02first\x03", "\x02second\x03", "\x02third\x03", "\x02fourth\x03")
_ROLES: tuple[tuple[Role, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)
PLAIN_TEMPLATE = '{{ if .System }}{{ .System }}{{ "\\n\\n" }}{{ end }}{{ .Prompt }}{{ "\\n" }}'
"""A model without a template: prompt and a line break, as it was trained."""


class Decoding(Frozen):
    """How the run let the model answer: greedy, at most `n_predict` tokens, with this penalty."""

    n_predict: int
    repeat_penalty: float = 1.0
    n_context: int


class Around(NamedTuple):
    """What stands before and after a message's content."""

    before: str
    after: str


class Turns(NamedTuple):
    """A chat template as prefixes and suffixes.

    `no_system` stands at the very beginning when there is no system message; `answer` begins an answer.
    """

    system: Around | None
    user: Around
    assistant: Around
    no_system: str
    answer: str


class Modelfile(NamedTuple):
    """The text, and a sentence when the model's chat template could not be expressed."""

    text: str
    note: str | None


def modelfile(model: Path, weights: str, decoding: Decoding) -> Modelfile:
    """Return the Modelfile for `weights` (a file beside it), made from the model folder it came from."""
    encoder = load_encoder(model)
    lines = ["# written by rdagent-ft", f"FROM ./{weights}"]
    note = None
    if encoder.template is None:
        template: str | None = PLAIN_TEMPLATE
    else:
        turns = read_turns(encoder)
        template = None if turns is None else go_template(turns)
    if template is None:
        note = "the chat template cannot be written in Ollama's language; Ollama uses what it knows of it"
        lines.append(f"# {note}")
    else:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in _stops(encoder)]
    lines += [
        "PARAMETER temperature 0",
        f"PARAMETER num_predict {decoding.n_predict}",
        f"PARAMETER num_ctx {decoding.n_context}",
        f"PARAMETER repeat_penalty {decoding.repeat_penalty:g}",
    ]
    return Modelfile("\n".join(lines) + "\n", note)


def read_turns(encoder: TextEncoder) -> Turns | None:
    """Return the chat template as prefixes and suffixes, or None when it is more than that.

    A begin-of-sequence token at the start is left out: llama.cpp adds it by itself.
    """
    alone, guided, longer, longest = (_render(encoder, roles) for roles in _ROLES)
    turns = None if longer is None else _turns(longer, guided)
    if turns is None or alone is None:
        return None
    expected = zip(_ROLES, (alone, guided, longer, longest), strict=True)
    same = all(text is None or compose(turns, roles) == text for roles, text in expected)
    return turns if same else None


def compose(turns: Turns, roles: tuple[Role, ...]) -> str:
    """Return what the Go template gives for a conversation of the probing contents."""
    text = "" if roles[0] == "system" else turns.no_system
    for role, content in zip(roles, _CONTENTS, strict=False):
        around = {"system": turns.system or Around("", ""), "user": turns.user, "assistant": turns.assistant}[
            role
        ]
        text += around.before + content + around.after
    return text + turns.answer


def go_template(turns: Turns) -> str:
    """Return the turns as a Go template over `.Messages`; literals are quoted, so white space is exact."""
    parts: list[str] = []
    if turns.no_system:
        parts.append("{{ if not .System }}" + _literal(turns.no_system) + "{{ end }}")
    parts.append("{{ range .Messages }}")
    known = (("system", turns.system), ("user", turns.user), ("assistant", turns.assistant))
    word = "if"
    for role, around in known:
        if around is not None:
            parts.append("{{ " + word + ' eq .Role "' + role + '" }}' + _literal(around.before))
            parts.append("{{ .Content }}" + _literal(around.after))
            word = "else if"
    parts.append("{{ end }}{{ end }}" + _literal(turns.answer))
    return "".join(parts)


def _turns(longer: str, guided: str | None) -> Turns | None:
    """Split the renders at their contents; `guided` begins with a system message, None where refused."""
    parts = _split(longer, _CONTENTS[:3])
    system = None if guided is None else _split(guided, _CONTENTS[:2])
    if parts is None or (guided is not None and system is None):
        return None
    head, between, again, end = parts
    before_user = [head, again] if system is None else [head, again, system[1]]
    user_before = _shared([text[::-1] for text in before_user])[::-1]
    assistant_after = again.removesuffix(user_before)
    user_after = _shared([between, end, assistant_after])
    return Turns(
        system=None if system is None else Around(system[0], system[1].removesuffix(user_before)),
        user=Around(user_before, user_after),
        assistant=Around(between.removeprefix(user_after), assistant_after),
        no_system=head.removesuffix(user_before),
        answer=end.removeprefix(user_after),
    )


def _shared(texts: list[str]) -> str:
    """Return the longest common beginning."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)


def _split(text: str, contents: tuple[str, ...]) -> list[str] | None:
    """Return what stands around the contents, None unless each stands there once and in order."""
    parts: list[str] = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found or content in text:
            return None
        parts.append(before)
    return [*parts, text]


def _render(encoder: TextEncoder, roles: tuple[Role, ...]) -> str | None:
    assert encoder.template is not None
    messages = tuple(
        Message(role=role, content=content) for role, content in zip(roles, _CONTENTS, strict=False)
    )
    try:
        text = render_chat(encoder.template, messages, encoder.special_tokens, add_generation_prompt=True)
    except DataError:
        return None
    return text.removeprefix(encoder.special_tokens.get("bos_token", ""))


def _stops(encoder: TextEncoder) -> list[str]:
    texts = [encoder.tokenizer.id_to_token(token) for token in sorted(encoder.end_token_ids)]
    return [text for text in texts if text]


def _literal(text: str) -> str:
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""
