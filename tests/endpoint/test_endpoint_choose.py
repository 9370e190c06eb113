"""Choosing by log-probability through echoed prompts, and every way in which it must not be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endpoint_case import KEY, needs_lm_eval, partial_rows, request_of, run_job
from fake_endpoint import FakeEndpoint, Status
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.endpoint.ends import EXIT_CODES
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness

pytestmark = needs_lm_eval
CHOICES = (" red", " green and blue", " yellow", " blue")


def build_tokenizer(folder: Path, texts: list[str], *, bos: bool = False) -> Tokenizer:
    """Write a byte-level tokenizer trained on texts."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|bos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    return tokenizer


def tokenize_with(tokenizer: Tokenizer) -> Any:
    return lambda text, add_special_tokens=True: (
        tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
    )


def write_choice_items(path: Path, n_items: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n_items):
            gold = CHOICES[number % 4].strip()
            line = {"item_id": f"i{number}", "prompt": f"colour {number}? ", "gold": gold, "choices": CHOICES}
            stream.write(json.dumps(line) + "\n")


def sums(server: FakeEndpoint, tokenizer: Tokenizer, number: int, special: bool) -> list[float]:
    """The sum over the tokens of each choice, worked out beside the harness."""
    prompt = f"colour {number}? "
    found = []
    for choice in CHOICES:
        whole = tokenizer.encode(prompt + choice, add_special_tokens=special).ids
        start = len(tokenizer.encode(prompt.rstrip(), add_special_tokens=special).ids)
        found.append(sum(server.logprob([*whole, 7], place) for place in range(start, len(whole))))
    return found


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
def test_the_likeliest_choice_is_taken(tmp_path: Path, prompt_format: str) -> None:
    write_choice_items(tmp_path / "items.jsonl", 12)
    tokenizer = build_tokenizer(tmp_path / "tok", ["colour red green and blue yellow ?"] * 9, bos=True)
    with FakeEndpoint(tokenize=tokenize_with(tokenizer)) as server:
        request = request_of(
            tmp_path,
            server,
            12,
            method="choose",
            tokenizer=tmp_path / "tok",
            prompt_format=prompt_format,
        )
        done = run_job(request, tmp_path / "job")
        assert done.returncode == 0, done.stderr[-3000:]
        answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
        body = server.seen[0].body
        assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
        assert body["add_special_tokens"] is (prompt_format == "plain")
        assert server.n_requests == 12  # all choices of an item in one request
        for number, answer in enumerate(answers):
            values = sums(server, tokenizer, number, prompt_format == "plain")
            assert answer.prediction == CHOICES[values.index(max(values))]
            shares = [value / len(choice) for value, choice in zip(values, CHOICES, strict=True)]
            assert answer.normalised_prediction == CHOICES[shares.index(max(shares))]
        # Stored likelihoods are used again, none is asked a second time.
        assert run_job(request, tmp_path / "job").returncode == 0
        assert server.n_requests == 12
    rows = partial_rows(tmp_path / "job")
    assert all(len(row["logprobs"]) == 4 for row in rows)
    assert len({answer.prediction for answer in answers}) > 1
    right = [CHOICES[n % 4] == answer.prediction for n, answer in enumerate(answers)]
    aggregate = json.loads((tmp_path / "job" / "aggregate.json").read_text())
    assert aggregate["tasks"][0]["exact_match"] == pytest.approx(sum(right) / 12)


@pytest.mark.parametrize("returns_token_ids", [True, False])
def test_another_tokenizer_ends_the_job(tmp_path: Path, returns_token_ids: bool) -> None:
    """The server cuts the text into other tokens: no likelihood is stored."""
    write_choice_items(tmp_path / "items.jsonl", 6)
    build_tokenizer(tmp_path / "tok", ["something else entirely"] * 9)
    served = build_tokenizer(tmp_path / "served", ["colour red green and blue yellow ?"] * 9)
    with FakeEndpoint(tokenize=tokenize_with(served), returns_token_ids=returns_token_ids) as server:
        request = request_of(tmp_path, server, 6, method="choose", tokenizer=tmp_path / "tok")
        done = run_job(request, tmp_path / "job")
    assert done.returncode == EXIT_CODES["tokenizer"], done.stderr[-2000:]
    assert "likelihoods would be wrong" in done.stderr
    assert partial_rows(tmp_path / "job") == []


def test_same_count_and_other_ids_end_the_job(tmp_path: Path) -> None:
    write_choice_items(tmp_path / "items.jsonl", 6)
    tokenizer = build_tokenizer(tmp_path / "tok", ["colour red green and blue yellow ?"] * 9)
    shifted = tokenize_with(tokenizer)
    with FakeEndpoint(tokenize=lambda text, special=True: [i + 1 for i in shifted(text, special)]) as server:
        request = request_of(tmp_path, server, 6, method="choose", tokenizer=tmp_path / "tok")
        done = run_job(request, tmp_path / "job")
    assert done.returncode == EXIT_CODES["tokenizer"], done.stderr[-2000:]


def test_a_server_without_logprobs_is_refused(tmp_path: Path) -> None:
    write_choice_items(tmp_path / "items.jsonl", 6)
    tokenizer = build_tokenizer(tmp_path / "tok", ["colour"])
    with FakeEndpoint(tokenize=tokenize_with(tokenizer), returns_logprobs=False) as server:
        request = request_of(tmp_path, server, 6, method="choose", tokenizer=tmp_path / "tok")
        done = run_job(request, tmp_path / "job")
    assert done.returncode == EXIT_CODES["bad_request"]
    assert "log-probabilities" in done.stderr


def test_likelihoods_that_are_no_numbers_are_unanswered(tmp_path: Path) -> None:
    write_choice_items(tmp_path / "items.jsonl", 4)
    tokenizer = build_tokenizer(tmp_path / "tok", ["colour red green and blue yellow ?"] * 9)
    nan = float("nan")
    with FakeEndpoint(
        tokenize=tokenize_with(tokenizer),
        logprob=lambda ids, place: nan if tokenizer.decode(ids).startswith("colour 2") else -1.0 - place,
        fault=lambda seen: Status(503) if "colour 1" in str(seen.body) else None,
    ) as server:
        request = request_of(tmp_path, server, 4, method="choose", tokenizer=tmp_path / "tok")
        done = run_job(request, tmp_path / "job")
    assert done.returncode == 0, done.stderr[-2000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert "no number" in (answers[2].unanswered or "")
    assert "503" in (answers[1].unanswered or "")
    assert [answer.unanswered is None for answer in answers] == [True, False, False, True]
    assert answers[0].prediction == " red"


def test_all_that_is_wrong_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    write_choice_items(tmp_path / "items.jsonl", 3)
    with FakeEndpoint() as server:
        chat = request_of(tmp_path, server, 3, method="choose", protocol="chat", role="a b")
        with pytest.raises(PreflightError) as caught:
            EndpointHarness().prepare(chat, tmp_path)
        problems = {problem.key: problem for problem in caught.value.problems}
        assert "heldout" in problems["targets.a b.protocol"].rule
        assert problems["targets.role"].value == "a b"
        without = request_of(tmp_path, server, 3, method="choose")
        with pytest.raises(PreflightError, match="endpoints") as caught:
            EndpointHarness().prepare(without, tmp_path)
        assert "tokenizer" in caught.value.problems[0].key
        spoken = request_of(tmp_path, server, 3, protocol="chat", repeats=2, base_url="ftp://x")
        with pytest.raises(PreflightError) as caught:
            EndpointHarness().prepare(spoken, tmp_path)
        assert {problem.key for problem in caught.value.problems} == {
            "targets.base.base_url",
            "tasks.heldout.repeats",
            "tasks.heldout.messages",
        }
    assert server.n_requests == 0
