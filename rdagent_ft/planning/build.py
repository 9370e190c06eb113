"""Builds the planner that the settings name, with the line that announces it."""

from __future__ import annotations

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.port import LlmClient
from rdagent_ft.planning.llm import LlmPlanner
from rdagent_ft.planning.port import Planner
from rdagent_ft.planning.random import RandomPlanner
from rdagent_ft.planning.tpe import TpePlanner
from rdagent_ft.settings import Settings

NO_LLM = "no LLM configured: planner tpe with knowledge-base priors"


def build_planner(settings: Settings, client: LlmClient | None) -> tuple[Planner, str]:
    """Return the planner and the run's first line about it.

    `client` None means that no LLM is configured; the planner `llm` then raises `PreflightError`.
    """
    wanted = settings.planner
    if wanted == "auto":
        if client is None:
            return TpePlanner(), NO_LLM
        wanted = "llm"
    if wanted == "llm":
        if client is None:
            raise PreflightError("planner llm needs a model", hint="set FT_PLANNER_MODEL, e.g. gpt-5-mini")
        return LlmPlanner(client), f"planner llm ({settings.planner_model})"
    planner: Planner = TpePlanner() if wanted == "tpe" else RandomPlanner()
    words = "with knowledge-base priors" if wanted == "tpe" else "over the whole search space"
    lessons = f"; lessons by {settings.planner_model}" if client is not None else ""
    return planner, f"planner {wanted} {words}{lessons}"
