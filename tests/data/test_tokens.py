"""Prompts and token counts: what TRL would train on, from a tokenizer folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.errors import DataError, PreflightError, UserError

RowMaker = Callable[..., Row]
FolderMaker = Callable[..., Path]
GENERATION = (
    "{%- for m in messages %}\n    {%- if m.role == 'assistant' %}{% generation %}<a>{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}\n    {%- else %}<{{ m.role }}>{{ m.content | trim }}"
    "{% if loop.index > 5 %}{% break %}{% endif %}\n    {%- endif %}\n{%- endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}{% if tools %}{{ tools | tojson }}{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{% for m in messages %}{{ m.content | tojson }}{% endfor %}"
)


def chat(*turns: tuple[str, str]) -> Row:
    return make_row(tuple(Message(role=role, content=text) for role, text in turns))  # type: ignore[arg-type]


def test_plain_is_prompt_newline_answer_and_end(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    item = row("pay the bill", "done")
    assert encoder.render_prompt(item, "plain") == "pay the bill\n"
    assert encoder.render_whole(item, "plain") == "pay the bill\ndone<|im_end|>"
    n_prompt, n_completion = encoder.row_tokens(item, "plain")
    assert n_prompt == encoder.count("pay the bill\n")
    assert n_completion == encoder.count("done") + 1
    assert encoder.eos_token == "<|im_end|>"


def test_an_answer_that_already_ends_is_not_ended_twice(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    assert encoder.render_whole(row("p", "done<|im_end|>"), "plain") == "p\ndone<|im_end|>"


def test_chat_renders_the_template(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    item = row("pay", "done")
    prompt = "<|im_start|>user\npay<|im_end|>\n<|im_start|>assistant\n"
    assert encoder.render_prompt(item, "chat") == prompt
    assert encoder.render_whole(item, "chat") == prompt + "done<|im_end|>\n"
    n_prompt, n_completion = encoder.row_tokens(item, "chat")
    assert n_prompt + n_completion == encoder.count(prompt + "done<|im_end|>\n")


def test_rows_tokens_equals_row_tokens(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row("word " * n, "x " * n + "y") for n in range(1, 30)]
    for form in ("plain", "chat"):
        assert encoder.rows_tokens(rows, form) == [encoder.row_tokens(item, form) for item in rows]
    assert encoder.rows_tokens([], "plain") == []


def test_measuring_again_or_with_repeats_gives_the_same(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row(f"p {index % 3}", "c") for index in range(9)]
    first = encoder.measure(rows, "plain")
    assert encoder.measure(rows[::-1], "plain") == first[::-1]
    assert encoder.measure(rows, "chat") != first
    assert all(found.has_end and found.n_context == found.n_prompt for found in first)


def test_a_tokenizer_that_truncates_or_pads_is_switched_off(
    row: RowMaker, tokenizer_folder: FolderMaker
) -> None:
    folder = tokenizer_folder()
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    assert sum(load_encoder(folder).row_tokens(row("word " * 50, "x"), "plain")) > 50


def test_without_a_template_chat_is_a_user_error(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder(template=None))
    assert encoder.render_prompt(row("p", "c"), "plain") == "p\n"
    with pytest.raises(UserError, match="no chat template"):
        encoder.render_prompt(row("p", "c"), "chat")


def test_a_template_that_refuses_a_row_is_a_data_error(tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder(template=REFUSES_SYSTEM))
    assert encoder.render_prompt(chat(("user", "<é>"), ("assistant", "a")), "chat") == '"<é>"'
    with pytest.raises(DataError, match=r"refuses a conversation \(system, user\): no system turn"):
        encoder.render_prompt(chat(("system", "s"), ("user", "u"), ("assistant", "a")), "chat")


@pytest.mark.parametrize("template", ["{% for %}", "{{ open"])
def test_a_template_that_is_no_jinja_is_refused(template: str, tokenizer_folder: FolderMaker) -> None:
    with pytest.raises(PreflightError, match="not valid Jinja"):
        load_encoder(tokenizer_folder(template=template))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].__class__.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ undefined_name.attribute }}",
        "{% for n in range(10 ** 9) %}x{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_hostile_template_gets_nothing(template: str, row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder(template=template))
    with pytest.raises(DataError, match="refuses a conversation"):
        encoder.render_prompt(row("p", "c"), "chat")


def test_the_template_may_lie_in_tokenizer_config(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    folder = tokenizer_folder(template=None)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for stored in (
        "X{{ messages[0].content }}",
        [{"name": "default", "template": "X{{ messages[0].content }}"}],
    ):
        config["chat_template"] = stored
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        assert load_encoder(folder).render_prompt(row("p", "c"), "chat") == "Xp"


def test_missing_and_damaged_files_are_named(tmp_path: Path, tokenizer_folder: FolderMaker) -> None:
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_encoder(tmp_path)
    folder = tokenizer_folder()
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(PreflightError, match=r"tokenizer_config\.json' is not valid JSON"):
        load_encoder(folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unheard"}}')
    with pytest.raises(PreflightError, match="not a tokenizer"):
        load_encoder(folder)


def test_end_tokens_come_from_both_files(tokenizer_folder: FolderMaker) -> None:
    folder = tokenizer_folder()
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert load_encoder(folder).end_token_ids == {0, 2}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = {"content": "<|endoftext|>", "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    encoder = load_encoder(folder)
    assert (encoder.eos_token, encoder.end_token_ids) == ("<|endoftext|>", {0})


CONVERSATIONS = (
    chat(("user", "send <b> & 'x'"), ("assistant", " done ")),
    chat(
        ("system", "be brief"),
        ("user", "pay\n42"),
        ("assistant", "yes"),
        ("user", "ok?"),
        ("assistant", "ok"),
    ),
    chat(("user", "call"), ("assistant", '{"f": 1}'), ("tool", "2"), ("assistant", "it is 2")),
)


@pytest.mark.train
@pytest.mark.parametrize("template", [None, GENERATION], ids=["chatml", "generation-tag"])
def test_rendering_and_counts_equal_transformers(template: str | None, tokenizer_folder: FolderMaker) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tokenizer_folder() if template is None else tokenizer_folder(template=template)
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = load_encoder(folder)
    for item in CONVERSATIONS:
        turns = [message.model_dump() for message in item.messages]
        prompt = reference.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        whole = reference.apply_chat_template(turns, tokenize=False)
        assert encoder.render_prompt(item, "chat") == prompt
        assert encoder.render_whole(item, "chat") == whole
        ids = reference.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
        assert encoder.row_token_ids([item], "chat")[0][2] == list(ids)
        text = encoder.render_whole(item, "plain")
        assert encoder.row_token_ids([item], "plain")[0][2] == list(reference(text)["input_ids"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.text(min_size=1, max_size=40).filter(str.strip),
    completion=st.text(min_size=1, max_size=40).filter(str.strip),
)
def test_the_trained_part_is_a_suffix_and_nothing_is_lost(
    tokenizer_folder: FolderMaker, row: RowMaker, prompt: str, completion: str
) -> None:
    encoder = load_encoder(tokenizer_folder())
    item = row(prompt, completion)
    for form in ("plain", "chat"):
        n_prompt, n_completion = encoder.row_tokens(item, form)
        ids = encoder.row_token_ids([item], form)[0][2]
        assert n_completion >= 1
        assert n_prompt + n_completion == len(ids)
        assert encoder.decode(ids) == encoder.render_whole(item, form)
