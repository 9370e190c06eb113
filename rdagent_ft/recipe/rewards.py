"""The verifiable rewards that a `grpo` stage may name; each has a weight in the sum.

Declarations only: how a completion is scored is in `rdagent_ft/training/rewards/`, which also runs inside the
training job. A reward that needs a gold answer reads the row's completion.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rdagent_ft.values import Frozen

Weight = Annotated[float, Field(ge=-100.0, le=100.0)]


class _Reward(Frozen):
    weight: Weight = 1.0


class ExactReward(_Reward):
    """1 when the completion equals the gold answer after white space and case are normalised."""

    kind: Literal["exact"] = "exact"


class NumericReward(_Reward):
    """1 when the completion's last number equals the gold answer's, within a relative tolerance."""

    kind: Literal["numeric"] = "numeric"
    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-6


class MathReward(_Reward):
    """1 when math-verify holds the completion's final expression and the gold answer for equal."""

    kind: Literal["math"] = "math"


class RegexReward(_Reward):
    """1 when the pattern is found in the completion; `whole` asks that it matches all of it."""

    kind: Literal["regex"] = "regex"
    pattern: Annotated[str, Field(min_length=1, max_length=2_000)]
    whole: bool = False


class JsonSchemaReward(_Reward):
    """1 when the completion is one JSON document that fits the schema (given as JSON text)."""

    kind: Literal["json_schema"] = "json_schema"
    json_schema: Annotated[str, Field(min_length=2, max_length=32_000)]


class JsonFieldReward(_Reward):
    """1 when the value at a dotted path of the completion's JSON equals that of the gold answer's."""

    kind: Literal["json_field"] = "json_field"
    path: Annotated[str, Field(min_length=1, max_length=500)]


class CodeReward(_Reward):
    """Share of the row's tests that the completion's code passes, run behind limits without network.

    The tests are the row's `tests` column: Python source that raises where the code is wrong.
    """

    kind: Literal["code"] = "code"
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0


class ThinkFormatReward(_Reward):
    """1 when the completion is one `<think>…</think>` block and then an answer."""

    kind: Literal["think_format"] = "think_format"


class PythonReward(_Reward):
    """A person's own function `f(completions, **columns) -> list[float | None]`, by dotted path.

    It runs inside the training job only, which has no network and no secrets.
    """

    kind: Literal["python"] = "python"
    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", max_length=200)]


class RewardModelReward(_Reward):
    """The score of the reward model that the recipe's `reward` stage trained."""

    kind: Literal["reward_model"] = "reward_model"


Reward = Annotated[
    ExactReward
    | NumericReward
    | MathReward
    | RegexReward
    | JsonSchemaReward
    | JsonFieldReward
    | CodeReward
    | ThinkFormatReward
    | PythonReward
    | RewardModelReward,
    Field(discriminator="kind"),
]
