"""Every shipped prompt declares what it uses; values are text, never templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from rdagent_ft.llm.prompts import PromptError, delimited, prompt_names, read_prompt, render_prompt


@pytest.mark.parametrize("name", prompt_names())
def test_every_prompt_is_declared_and_small(name: str) -> None:
    spec, body = read_prompt(name)
    assert spec.purpose
    assert spec.reply
    assert "{% block" in body
    assert len(body) < 8_000


@pytest.mark.parametrize("name", prompt_names())
def test_every_prompt_refuses_missing_and_unknown_values(name: str) -> None:
    spec, _ = read_prompt(name)
    with pytest.raises(PromptError, match=spec.variables[0]):
        render_prompt(name)
    values = dict.fromkeys(spec.variables, "x")
    with pytest.raises(PromptError, match="surprise"):
        render_prompt(name, **values, surprise=1)


def _write(folder: Path, text: str) -> Path:
    (folder / "p.j2").write_text(text)
    return folder


FRONT = "---\npurpose: p\nvariables: [a]\nreply: r\n---\n"


def test_undeclared_and_unused_variables_are_errors(tmp_path: Path) -> None:
    for body in ("{% block user %}{{ b }}{% endblock %}", "{% block user %}none{% endblock %}"):
        with pytest.raises(PromptError, match="declares"):
            read_prompt("p", _write(tmp_path, FRONT + body))


def test_missing_attribute_is_an_error(tmp_path: Path) -> None:
    folder = _write(tmp_path, FRONT + "{% block user %}{{ a.b }}{% endblock %}")
    with pytest.raises(UndefinedError):
        render_prompt("p", folder=folder, a={})


def test_sections_and_values_that_look_like_templates(tmp_path: Path) -> None:
    body = "{% block system %}S{% endblock %}{% block user %}[{{ a }}]{% endblock %}"
    messages = render_prompt("p", folder=_write(tmp_path, FRONT + body), a="{{ 1+1 }}{% block x %}<&>")
    assert [message.role for message in messages] == ["system", "user"]
    assert messages[1].content == "[{{ 1+1 }}{% block x %}<&>]"


def test_no_front_matter_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="front matter"):
        read_prompt("p", _write(tmp_path, "{% block user %}x{% endblock %}"))
    with pytest.raises(PromptError, match="no prompt"):
        read_prompt("q", tmp_path)


@given(st.text(max_size=200), st.integers(0, 9))
def test_foreign_text_cannot_close_its_mark(text: str, salt: int) -> None:
    shown = delimited("data", text, salt=str(salt))
    end = shown.rsplit("\n", 1)[1]
    assert shown.count(end) == 1
    assert text in shown
    assert shown == delimited("data", text, salt=str(salt))


def test_long_foreign_text_keeps_head_and_tail() -> None:
    shown = delimited("log", "head" + "x" * 10_000 + "tail", salt="1", max_chars=900)
    assert "head" in shown
    assert "tail" in shown
    assert "characters left out" in shown
    assert len(shown) < 1_100
