"""Which rows of the train split a recipe uses, and in which order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rdagent_ft.values import Frozen

MAX_SCRIPT_CHARS = 32_000


class DataMix(Frozen):
    """Which rows of the train split are used, in which order. Applied before tokenisation.

    Attributes:
        script: Python source that reads the train split and writes the rows to use instead; the other
            fields then apply to its rows. Runs in a container only. None uses the split as it is.
        dedupe: drop repeated rows: `exact` by normalised text, `near` by near-duplicate group.
        exclude_sources: values of a row's `source` to leave out.
        max_row_tokens: drop rows whose prompt + completion is longer (tokens); None keeps all.
        max_items: keep at most this many rows after the shuffle; None keeps all.
        shuffle_seed: seed of the shuffle.
    """

    script: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARS)] | None = None
    dedupe: Literal["none", "exact", "near"] = "none"
    exclude_sources: tuple[str, ...] = ()
    max_row_tokens: Annotated[int, Field(ge=8, le=1_000_000)] | None = None
    max_items: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    shuffle_seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42

    @model_serializer(mode="wrap")
    def _without_absent_script(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an absent script out, so that recipes keep the JSON and the hash they had before it."""
        values: dict[str, Any] = inner(self)
        if self.script is None:
            values.pop("script", None)
        return values
