"""Chat templates without transformers: compile and render them as `apply_chat_template` does.

A template comes with a model, so it is foreign code: it runs in Jinja's immutable sandbox, sees plain
values only, and any failure of it is a message about the template. A test compares the result with
transformers on the same tokenizer.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, cast

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rdagent_ft.data.rows import Message
from rdagent_ft.errors import DataError, PreflightError

# What a template raises when it computes without measure: too long a range, too deep a recursion.
_RUNAWAY = (ArithmeticError, RecursionError)


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks trained text for transformers; here it only renders."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the body of the block as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_chat_template(text: str) -> Template:
    """Return the compiled template. Raises `PreflightError` when it is not valid Jinja."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    names = cast("dict[str, Any]", environment.globals)
    names |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise PreflightError(f"the model's chat template is not valid Jinja: {error}") from None


def render_chat(
    template: Template,
    messages: tuple[Message, ...],
    special_tokens: dict[str, str],
    *,
    add_generation_prompt: bool,
) -> str:
    """Return the rendered conversation. Raises `DataError` when the template refuses it."""
    try:
        return template.render(
            messages=[{"role": message.role, "content": message.content} for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, *_RUNAWAY) as error:
        roles = ", ".join(message.role for message in messages)
        raise DataError(f"the model's chat template refuses a conversation ({roles}): {error}") from None


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's HTML escaping: a model must see `<`, not `\\u003c`."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005  (templates print the local date)
