"""The recipe: everything about a training that a planner may choose, and nothing else.

A recipe is frozen, typed and hashed. What belongs to the program (paths, base model, output,
prompt format, decoding, hub pushing) is not here on purpose: two candidates that were prompted or
decoded differently could not be compared. Cross-field rules live in `rules.py`, rendering in
`render.py`, the ranges that planners sample from in `space.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rdagent_ft.values import Frozen, content_hash

StageKind = Literal["sft"]
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


class LoraAdapter(Frozen):
    """Low-rank adapter (PEFT). `target_modules` is all linear layers unless a recipe says less.

    Source of the default target: "LoRA Without Regret" (attention-only loses at equal size).
    """

    kind: Literal["lora"] = "lora"
    r: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1, le=2048)] = 32
    dropout: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    use_rslora: bool = False


class FullAdapter(Frozen):
    """All weights are trained."""

    kind: Literal["full"] = "full"


Adapter = Annotated[LoraAdapter | FullAdapter, Field(discriminator="kind")]


class SftStage(Frozen):
    """Supervised fine-tuning on completions (TRL `SFTTrainer`).

    Attributes:
        adapter: what is trained.
        learning_rate: peak, per optimizer step.
        lr_scheduler: shape after warm-up.
        warmup_ratio: share of all steps spent warming up (rendered as a float `warmup_steps`).
        epochs: passes over the data; ignored when `max_steps` is set.
        max_steps: optimizer steps; None means `epochs` decides.
        effective_batch: rows per optimizer step over all devices and accumulation.
        micro_batch: rows per device per forward pass; divides `effective_batch`.
        max_length: tokens per row, longer rows are cut at the right.
        weight_decay: AdamW weight decay.
        max_grad_norm: gradient clipping norm; 0 switches clipping off.
        packing: several rows per sequence; needs a variable-length attention kernel.
        attn_implementation: attention kernel; `auto` lets the program choose.
        gradient_checkpointing: recompute activations (about 20 % slower, less memory).
        optim: optimizer name of transformers.
        neftune_noise_alpha: embedding noise; None switches it off.
        seed: seed of weights, dropout and data order inside the trainer.
    """

    kind: Literal["sft"] = "sft"
    adapter: Adapter = LoraAdapter()
    learning_rate: Annotated[float, Field(gt=0.0, le=1e7)] = 2e-4
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    effective_batch: Annotated[int, Field(ge=1, le=65_536)] = 16
    micro_batch: Annotated[int, Field(ge=1, le=4_096)] = 8
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 1024
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    packing: bool = False
    attn_implementation: Literal["auto", "sdpa", "eager", "kernels-community/flash-attn2"] = "auto"
    gradient_checkpointing: bool = False
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "adafactor"] = "adamw_torch"
    neftune_noise_alpha: Annotated[float, Field(gt=0.0, le=50.0)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42


Stage = SftStage
"""One training stage; becomes a discriminated union as stages come (`kind` is the tag)."""


class Recipe(Frozen):
    """The candidate. `schema_version` changes when a field changes meaning."""

    schema_version: Literal[1] = 1
    data: DataMix = DataMix()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=1)] = (SftStage(),)

    @property
    def hash(self) -> str:
        """The recipe's identity: 12 hex digits of its canonical JSON's SHA-256."""
        return content_hash(self)
