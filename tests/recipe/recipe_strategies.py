"""Random recipes of several stages in orders that make sense, and random files that are no recipes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.rewards import (
    ExactReward,
    JsonSchemaReward,
    NumericReward,
    RegexReward,
    RewardModelReward,
)
from rdagent_ft.recipe.schema import MAX_STAGES, Recipe
from rdagent_ft.recipe.stages import (
    STAGE_CLASSES,
    DistillStage,
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    MergeStage,
    PairSampling,
    RewardStage,
    SftStage,
    TrainedStage,
)

LORA = st.builds(
    LoraAdapter,
    r=st.integers(1, 512),
    dropout=st.floats(0, 0.5),
    target_modules=st.just("all-linear")
    | st.lists(st.sampled_from(["q_proj", "v_proj"]), max_size=2).map(tuple),
    use_dora=st.booleans(),
    quantization=st.sampled_from(["none", "nf4"]),
)
SHARED: dict[str, Any] = {
    "adapter": LORA | st.just(FullAdapter()),
    "learning_rate": st.floats(1e-9, 1.0),
    "epochs": st.floats(0.1, 100.0),
    "max_steps": st.none() | st.integers(1, 1000),
    "effective_batch": st.integers(1, 128),
    "micro_batch": st.integers(1, 64),
}
PREFERENCE = SHARED | {
    "pairs": st.sampled_from(["given", "sampled"]),
    "sampling": st.builds(PairSampling, n_samples=st.integers(1, 64)),
}
WEIGHTS = st.floats(-100, 100)
VERIFIABLE = st.lists(
    st.builds(ExactReward, weight=WEIGHTS)
    | st.builds(NumericReward, tolerance=st.floats(0, 1))
    | st.builds(RegexReward, pattern=st.sampled_from(["2e-4", "a+", "\\boxed", "12"]))
    | st.just(JsonSchemaReward(json_schema='{"type": "object"}')),
    min_size=1,
    max_size=3,
)
SFT = st.builds(SftStage, **SHARED, neftune_noise_alpha=st.none() | st.floats(0.5, 50))
DPO = st.builds(
    DpoStage, **PREFERENCE, beta=st.floats(0, 100),
    loss_type=st.sampled_from([("sigmoid",), ("ipo",), ("sigmoid", "sft")]),
    loss_weights=st.none() | st.just((1.0,)) | st.just((1.0, 0.25)),
)  # fmt: skip
KTO = st.builds(KtoStage, **PREFERENCE, desirable_weight=st.floats(0.1, 10))
GRPO = st.builds(
    GrpoStage, **SHARED, rewards=VERIFIABLE.map(tuple), num_generations=st.integers(2, 64),
    epsilon_high=st.none() | st.floats(0.1, 5.0),
)  # fmt: skip
DISTILL = st.builds(DistillStage, **SHARED, teacher=st.sampled_from(["teacher-8b", "12"]))
REWARD = st.builds(RewardStage, **PREFERENCE)
ASKING = st.builds(GrpoStage, **SHARED, rewards=st.just((RewardModelReward(),)))
ORDERS: tuple[tuple[st.SearchStrategy[Any], ...], ...] = (
    (SFT,), (SFT, SFT), (DPO,), (KTO,), (GRPO,), (DISTILL,), (SFT, DPO), (SFT, KTO, GRPO),
    (SFT, DISTILL, DPO), (SFT, REWARD, ASKING), (REWARD, ASKING),
)  # fmt: skip


def _chained(stages: tuple[TrainedStage, ...], merge_last: bool) -> tuple[Any, ...]:
    """Return the stages with a merge wherever the next one would start from an adapter."""
    chain: list[Any] = []
    for place, stage in enumerate(stages):
        chain.append(stage)
        last = place == len(stages) - 1
        lora = isinstance(stage.adapter, LoraAdapter) and not isinstance(stage, RewardStage)
        if lora and (merge_last or not last):
            chain.append(MergeStage())
    assert len(chain) <= MAX_STAGES
    return tuple(chain)


CHAINS = st.sampled_from(ORDERS).flatmap(
    lambda order: st.builds(_chained, st.tuples(*order), merge_last=st.booleans())
)
RECIPES = st.builds(
    Recipe,
    data=st.builds(
        DataMix,
        dedupe=st.sampled_from(["none", "exact", "near"]),
        exclude_sources=st.lists(st.sampled_from(["a", "1"]), max_size=2).map(tuple),
        max_items=st.none() | st.integers(16, 1000),
    ),
    stages=CHAINS,
)
FIELD_NAMES = sorted({name for model in STAGE_CLASSES.values() for name in model.model_fields})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["lora", "full", "sft", "grpo", "reward_model", "regex", "1e-4", "nan"])
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["kind", "rewards", "adapter", "pattern", *FIELD_NAMES]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
STAGE_LIKE = st.builds(
    lambda kind, rest: {**rest, "kind": kind},
    st.sampled_from([*STAGE_CLASSES, "ppo"]),
    st.dictionaries(st.sampled_from([*FIELD_NAMES, "lr", "model", "x"]), JUNK, max_size=4),
)
BROKEN_FILES = st.fixed_dictionaries(
    {},
    optional={
        "stages": st.lists(STAGE_LIKE | JUNK, max_size=4) | JUNK,
        "data": JUNK,
        "x": JUNK,
        "model": JUNK,
    },
)
