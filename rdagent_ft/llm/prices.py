"""What a token costs, so that money can be booked before a request is sent.

Prices come from the settings, else from the table that ships with `genai-prices` (no network). Tiers
for very long prompts are not modelled: the rate is the one for prompts under 128k tokens.
"""

from __future__ import annotations

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.endpoint import is_loopback
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

REFERENCE_TOKENS = 1_000
"""Usage at which the table is read: small enough to stay in a model's first price tier."""


class Price(Frozen):
    """Dollars per million tokens; `cached_input_usd` is None where cached input is not cheaper."""

    input_usd: float
    output_usd: float
    cached_input_usd: float | None = None
    source: str = ""

    def cost_usd(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> float:
        """Return dollars for one request; cached tokens are part of `input_tokens`."""
        cached = min(cached_input_tokens, input_tokens) if self.cached_input_usd is not None else 0
        dollars = (input_tokens - cached) * self.input_usd + output_tokens * self.output_usd
        return (dollars + cached * (self.cached_input_usd or 0.0)) / 1e6


FREE = Price(input_usd=0.0, output_usd=0.0, source="an endpoint on this machine costs nothing")


def price_of(settings: Settings, model: str, base_url: str | None) -> Price | None:
    """Return the price of `model`: the settings', else nothing for loopback, else the table's.

    None means unknown and allowed by FT_LLM_PRICE_UNKNOWN=ok; unknown and not allowed, or only one
    of the two price settings given, raises `PreflightError`.
    """
    given = (settings.llm_price_input, settings.llm_price_output)
    if given[0] is not None and given[1] is not None:
        return Price(input_usd=given[0], output_usd=given[1], source="settings")
    if given != (None, None):
        raise PreflightError("FT_LLM_PRICE_INPUT and FT_LLM_PRICE_OUTPUT must be set together")
    if is_loopback(base_url):
        return FREE
    found = _table_price(model, base_url)
    if found is None and settings.llm_price_unknown == "refuse":
        raise PreflightError(
            f"the price of the LLM {model!r} is not known, so its spending could not be bounded",
            hint="set FT_LLM_PRICE_INPUT and FT_LLM_PRICE_OUTPUT (dollars per million tokens), "
            "or FT_LLM_PRICE_UNKNOWN=ok to go on without a money count",
        )
    return found


def _table_price(model: str, base_url: str | None) -> Price | None:
    from genai_prices import Usage, calc_price

    try:
        if base_url is not None:
            rate = calc_price(_usage(Usage), model, provider_api_url=base_url)
            cached = calc_price(_usage(Usage, cached=True), model, provider_api_url=base_url)
        else:
            provider = "litellm" if "/" in model else None  # `provider/model` is litellm's spelling
            rate = calc_price(_usage(Usage), model, provider_id=provider)
            cached = calc_price(_usage(Usage, cached=True), model, provider_id=provider)
    except LookupError:
        return None
    per_million = 1e6 / REFERENCE_TOKENS
    return Price(
        input_usd=float(rate.input_price) * per_million,
        output_usd=float(rate.output_price) * per_million,
        cached_input_usd=float(cached.input_price) * per_million,
        source=f"genai-prices, {rate.provider.id}/{rate.model.id}",
    )


def _usage(kind: type, *, cached: bool = False) -> object:
    counts = {"input_tokens": REFERENCE_TOKENS, "output_tokens": REFERENCE_TOKENS}
    return kind(**counts, cache_read_tokens=REFERENCE_TOKENS if cached else 0)
