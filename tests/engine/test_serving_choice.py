"""What generates a run's answers: decided once, said aloud, and never changed in silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.steps.baseline import _server_versions
from rdagent_ft.engine.warm_server import Device, choose_serving
from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.execution.port import Executor
from rdagent_ft.settings import Settings

PYTHON = Path("/opt/serve/bin/python")


def executor(name: str, *, near: bool = True) -> Executor:
    return cast(Executor, SimpleNamespace(name=name, shares_files=near))


@pytest.mark.parametrize(
    ("serving", "where", "python", "device", "warm", "words"),
    [
        ("off", executor("docker"), None, "cuda", False, "FT_SERVING=off"),
        ("auto", executor("docker"), None, "cuda", True, "one warm vLLM server"),
        ("auto", executor("docker"), None, "cpu", False, "no GPU"),
        ("auto", executor("local"), None, "cuda", False, "FT_SERVE_PYTHON"),
        ("auto", executor("local"), PYTHON, "cuda", True, "one warm vLLM server"),
        ("auto", executor("docker", near=False), None, "cuda", False, "remote engine"),
        ("vllm", executor("local"), PYTHON, "cpu", True, "one warm vLLM server"),
    ],
)
def test_the_choice_is_said_in_words(
    serving: str, where: Executor, python: Path | None, device: Device, warm: bool, words: str
) -> None:
    settings = Settings.model_validate({"serving": serving, "serve_python": python})
    found = choose_serving(settings, where, device)
    assert found.is_warm is warm
    assert words in found.reason


@pytest.mark.parametrize("where", [executor("local"), executor("docker", near=False)])
def test_a_server_that_was_asked_for_and_cannot_be_is_an_error(where: Executor) -> None:
    with pytest.raises(PreflightError, match="FT_SERVING=vllm"):
        choose_serving(Settings.model_validate({"serving": "vllm"}), where, "cpu")


class Unservable:
    """A warm server whose model cannot be served."""

    closed = False

    def of(self, *_: Any, **__: Any) -> Any:
        raise ServerError("no kernel for head size 40", kind="model")

    def close(self) -> None:
        self.closed = True


def context(serving: str, said: list[str]) -> Any:
    model = SimpleNamespace(path="m", max_positions=64)
    return SimpleNamespace(
        warm=Unservable(),
        prepared=SimpleNamespace(model=model, device="cpu"),
        settings=Settings.model_validate({"serving": serving}),
        progress=SimpleNamespace(notice=said.append),
    )


def test_with_auto_a_model_that_cannot_be_served_is_scored_in_jobs_and_the_run_says_so() -> None:
    said: list[str] = []
    ctx = context("auto", said)
    server = ctx.warm
    assert _server_versions(cast(RunContext, ctx)) == {}
    assert ctx.warm is None
    assert server.closed
    assert said == ["no kernel for head size 40: scores come from a job for each model"]


def test_a_server_that_was_asked_for_is_never_replaced() -> None:
    with pytest.raises(ServerError, match="head size"):
        _server_versions(cast(RunContext, context("vllm", [])))
