"""The Ollama template gives what the model's own chat template gives, or is not written at all.

Go's template language is read here by a few lines of their own, so that the check does not lean on the
code that wrote it.
"""

# ruff: noqa: E501  (templates read better on one line)
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from rdagent_ft.data.chat_template import render_chat
from rdagent_ft.data.rows import Message
from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.reporting.modelfile import Decoding, go_template, modelfile, read_turns

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou \"help\".<|im_end|>\n{% endif %}"
    + CHATML
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
EXPRESSED = {
    "chatml": CHATML, "default-system": WITH_DEFAULT_SYSTEM, "llama": LLAMA, "mistral": MISTRAL, "gemma": GEMMA,
    "thinking": THINKING,
}  # fmt: skip
NOT_EXPRESSED = {
    "numbered": "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}",
    "last turn is special": "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m['content'] }}\n{% endfor %}",
    "upper case": "{% for m in messages %}{{ m['content'] | upper }}\n{% endfor %}",
    "no contents": "{% for m in messages %}{{ m['role'] }}\n{% endfor %}",
}
CONVERSATIONS = (
    ("user",), ("system", "user"), ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)  # fmt: skip


def model(folder: Path, template: str | None) -> Path:
    """Write the files of a tokenizer with this chat template."""
    words = {"<s>": 0, "</s>": 1, "<|im_end|>": 2, "x": 3}
    Tokenizer(models.WordLevel(words, unk_token="x")).save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    return folder


def go(template: str, system: str, messages: list[tuple[str, str]], prompt: str = "") -> str:
    """Execute the part of Go's template language that a Modelfile of ours uses."""
    parts = re.split(r"\{\{ (.*?) \}\}", template, flags=re.S)
    position = 0

    def block(shown: bool, role: str = "", content: str = "") -> tuple[str, str]:
        """Return the text up to the end of this block, and the word that ended it."""
        nonlocal position
        text = ""
        while position < len(parts):
            part, is_action = parts[position], position % 2 == 1
            position += 1
            if not is_action:
                assert part == "", "literals are quoted"
            elif part.startswith('"'):
                text += json.loads(part)
            elif part in (".Content", ".System", ".Prompt"):
                text += {".Content": content, ".System": system, ".Prompt": prompt}[part]
            elif part == "end" or part.startswith("else if "):
                return (text if shown else ""), part
            elif part.startswith("if "):
                text += branches(part, role, content)
            elif part == "range .Messages":
                start, whole = position, ""
                for each_role, each_content in messages or [("", "")]:
                    position = start
                    found, _ = block(bool(messages), each_role, each_content)
                    whole += found
                text += whole
            else:
                raise AssertionError(f"unknown action {part!r}")
        return text, "end"

    def branches(part: str, role: str, content: str) -> str:
        text, taken, word = "", False, part
        while word != "end":
            condition = word.removeprefix("else ").removeprefix("if ")
            holds = {"not .System": not system, ".System": bool(system)}.get(
                condition, condition == f'eq .Role "{role}"'
            )
            found, word = block(holds and not taken, role, content)
            text, taken = text + found, taken or holds
        return text

    return block(True)[0]


@pytest.mark.parametrize("name", EXPRESSED)
def test_the_template_of_ollama_gives_the_same_text(tmp_path: Path, name: str) -> None:
    encoder = load_encoder(model(tmp_path, EXPRESSED[name]))
    turns = read_turns(encoder)
    assert turns is not None
    assert encoder.template is not None
    template = go_template(turns)
    for roles in CONVERSATIONS:
        if roles[0] == "system" and turns.system is None:
            continue
        messages = tuple(
            Message(role=role, content=f'Text {at} "of" {role}') for at, role in enumerate(roles)
        )  # type: ignore[arg-type]
        wanted = render_chat(encoder.template, messages, encoder.special_tokens, add_generation_prompt=True)
        system = messages[0].content if roles[0] == "system" else ""
        given = go(template, system, [(each.role, each.content) for each in messages])
        assert given == wanted.removeprefix("<s>")
    assert (turns.system is None) == (name in {"mistral", "gemma"})


@pytest.mark.parametrize("name", NOT_EXPRESSED)
def test_a_template_that_does_more_is_not_written(tmp_path: Path, name: str) -> None:
    assert read_turns(load_encoder(model(tmp_path, NOT_EXPRESSED[name]))) is None
    made = modelfile(tmp_path, "model-f16.gguf", Decoding(n_predict=8, n_context=64))
    assert made.note is not None
    assert "TEMPLATE" not in made.text
    assert "FROM ./model-f16.gguf" in made.text


def test_stops_and_decoding_are_the_models_own(tmp_path: Path) -> None:
    made = modelfile(
        model(tmp_path, CHATML), "m.gguf", Decoding(n_predict=64, repeat_penalty=1.1, n_context=512)
    )
    assert made.note is None
    assert made.text.splitlines()[1] == "FROM ./m.gguf"
    parameters = re.findall(r"^PARAMETER (.*)$", made.text, flags=re.M)
    assert parameters == [
        'stop "</s>"', 'stop "<|im_end|>"', "temperature 0", "num_predict 64", "num_ctx 512", "repeat_penalty 1.1",
    ]  # fmt: skip


def test_a_model_without_a_template_gets_prompt_and_line_break(tmp_path: Path) -> None:
    made = modelfile(model(tmp_path, None), "m.gguf", Decoding(n_predict=8, n_context=64))
    found = re.search(r'TEMPLATE """(.*?)"""', made.text, flags=re.S)
    assert found is not None
    assert go(found[1], "", [], prompt="What?") == "What?\n"
    assert go(found[1], "Be brief.", [], prompt="What?") == "Be brief.\n\nWhat?\n"
