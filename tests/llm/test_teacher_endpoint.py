"""Which endpoint teaches, with which key and price: borrowed keys go to their own server only."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.endpoint import OPENAI_URL
from rdagent_ft.llm.side_endpoint import side_price
from rdagent_ft.llm.teacher_endpoint import resolve_teacher_endpoint
from rdagent_ft.settings import Settings, storable

PLANNER = {"planner_model": "p", "llm_api_key": "planner-key", "llm_api_base": "https://plan.corp/v1"}


def found(environ: dict[str, str] | None = None, **values: Any) -> Any:
    return resolve_teacher_endpoint(Settings.model_validate(values), environ or {}, 0.5)


def key_of(endpoint: Any) -> str | None:
    return endpoint.api_key.get_secret_value() if endpoint.api_key else None


def test_without_a_model_there_is_no_teacher() -> None:
    assert found(**PLANNER) is None
    assert found({"OPENAI_API_KEY": "k"}, teacher_api_key="k", teacher_api_base="http://127.0.0.1:1") is None
    assert found(teacher_model=" ") is None


def test_the_teacher_has_its_own_model_key_and_server() -> None:
    endpoint = found(
        **PLANNER, teacher_model="t", teacher_api_key="own", teacher_api_base="http://10.0.0.1:88"
    )
    assert (endpoint.model, endpoint.base_url, key_of(endpoint)) == ("t", "http://10.0.0.1:88/v1", "own")
    assert endpoint.temperature == 0.5


def test_what_is_unset_is_borrowed_for_the_same_server_only() -> None:
    endpoint = found(**PLANNER, teacher_model="t")
    assert (endpoint.base_url, key_of(endpoint)) == ("https://plan.corp/v1", "planner-key")
    with pytest.raises(
        PreflightError, match=r"no key for the teacher 't' at https://other\.corp:443"
    ) as caught:
        found(**PLANNER, teacher_model="t", teacher_api_base="https://other.corp/v1")
    assert "FT_TEACHER_API_KEY" in (caught.value.hint or "")
    assert key_of(found(**PLANNER, teacher_model="t", teacher_api_base="http://127.0.0.1:9/v1")) is None
    endpoint = found({"OPENAI_API_KEY": "env"}, teacher_model="t")
    assert (endpoint.base_url, key_of(endpoint)) == (OPENAI_URL, "env")


def test_a_base_url_that_is_none_is_refused() -> None:
    with pytest.raises(PreflightError, match="no http"):
        found(teacher_model="t", teacher_api_base="ftp://x/v1")


def test_prices_of_the_planner_count_where_nothing_else_is_known() -> None:
    notes: list[str] = []

    def price(**values: Any) -> Any:
        settings = Settings.model_validate({**PLANNER, "teacher_model": "no-such-model-x", **values})
        endpoint = resolve_teacher_endpoint(settings, {})
        assert endpoint is not None
        return side_price("teacher", settings, endpoint, notes.append)

    with pytest.raises(PreflightError, match="price"):
        price()
    assert price(llm_price_input=1.0, llm_price_output=2.0).output_usd == 2.0
    assert "teacher: the price of no-such-model-x is not known" in notes[0]
    assert price(llm_price_unknown="ok") is None
    assert price(teacher_api_base="http://127.0.0.1:1/v1").output_usd == 0


def test_the_key_is_not_stored() -> None:
    settings = Settings.model_validate({"teacher_model": "t", "teacher_api_key": "secret-of-teacher"})
    assert "secret" not in str(storable(settings))
    assert storable(settings)["teacher_model"] == "t"
