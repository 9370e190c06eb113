"""Which endpoint judges: its own model, key and base URL, apart from the planner's.

The model is FT_JUDGE_MODEL; what else is unset is borrowed as `side_endpoint.py` says. Opens no connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from rdagent_ft.llm.endpoint import Endpoint
from rdagent_ft.llm.side_endpoint import SideModel, side_endpoint
from rdagent_ft.settings import Settings

JUDGE_TEMPERATURE = 0.0


def resolve_judge_endpoint(settings: Settings, environ: Mapping[str, str]) -> Endpoint | None:
    """Return the judge's endpoint, or None when FT_JUDGE_* ask for none.

    Raises `PreflightError` when a judge is asked for and cannot be reached as asked.
    """
    model = settings.judge_model.strip()
    if not _is_asked_for(settings) or not model or model.lower() == "none":
        return None
    wanted = SideModel(
        name="judge",
        model=model,
        api_key=settings.judge_api_key,
        api_base=settings.judge_api_base,
        temperature=JUDGE_TEMPERATURE,
    )
    return side_endpoint(wanted, settings, environ)


def _is_asked_for(settings: Settings) -> bool:
    """Return whether one of FT_JUDGE_* says something: a key that is at hand for a planner asks for no judge.

    Values are looked at and not where they come from: a resumed run has every value from its record.
    """
    default = Settings.model_fields["judge_model"].default
    own = (settings.judge_api_key, settings.judge_api_base)
    return settings.judge_model != default or any(value not in (None, "") for value in own)
