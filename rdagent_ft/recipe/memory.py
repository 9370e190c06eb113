"""How much memory a training stage needs, from the model's config alone.

An estimate before anything is loaded: right to about 25 % for dense decoder models, meant to reject
what cannot fit. Not covered: vision towers, expert parallelism, sharding over several devices
(every device holds everything here), and the allocator's fragmentation beyond a flat allowance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.schema import LoraAdapter, Recipe, SftStage
from rdagent_ft.values import Frozen

GIB = 1 << 30
# Runtime: CUDA context and libraries (measured 0.5-0.9 GiB by vendors), or torch + transformers on CPU.
_RUNTIME_GIB = {"cuda": 0.8, "cpu": 0.8}
_FRAGMENTATION = 1.05
# TRL 1.16 scores tokens in tiles of this many tokens by this many words (`kernels/chunked_logprob.py`).
_TILE_TOKENS, _TILE_VOCAB = 4096, 32_768


class ModelShape(Frozen):
    """What memory depends on.

    Attributes:
        hidden_size, n_layers, vocab_size: sizes of the decoder.
        n_heads, n_kv_heads, head_dim: attention; fewer key/value heads is GQA.
        intermediate_size: width of one MLP (of one expert for MoE).
        n_experts, n_active_experts: 1 for dense models.
        tied_embeddings: whether the head shares the embedding's weights.
        max_positions: context length in tokens.
        model_type: family as transformers names it.
    """

    hidden_size: int
    n_layers: int
    vocab_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    n_experts: int = 1
    n_active_experts: int = 1
    tied_embeddings: bool = False
    max_positions: int = 2048
    model_type: str = ""

    @property
    def n_params(self) -> int:
        """Number of weights (norms and biases left out, below 0.1 %)."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return embeddings + self.n_layers * self.layer_params

    @property
    def layer_params(self) -> int:
        """Weights of one layer: four attention projections and three MLP matrices per expert."""
        attention = 2 * self.hidden_size * self.head_dim * (self.n_heads + self.n_kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size * self.n_experts

    def lora_params(self, r: int, n_targets: int = 7) -> int:
        """Weights of LoRA with rank `r` on `n_targets` of the 7 linear layers of each block.

        A matrix of a x b gets r * (a + b) weights (LoRA, arXiv 2106.09685).
        """
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        attention = 2 * (self.hidden_size + queries) + 2 * (self.hidden_size + keys)
        mlp = 3 * (self.hidden_size + self.intermediate_size) * self.n_experts
        return int(r * self.n_layers * (attention + mlp) * n_targets / 7)


class MemoryEstimate(Frozen):
    """Peak memory of one device in GiB, as a whole and by part."""

    total_gib: float
    parts: dict[str, float]

    def words(self) -> str:
        """Return the estimate as one line, largest part first."""
        ordered = sorted(self.parts.items(), key=lambda item: -item[1])
        return f"{self.total_gib:.1f} GiB: " + ", ".join(f"{name} {size:.2f}" for name, size in ordered)


def read_model_shape(source: Mapping[str, Any] | Path) -> ModelShape:
    """Return the shape from a model's config: its mapping, its file or the model's folder.

    Reads the text part of multimodal configs; names of GPT-2 and NeoX style configs are known.
    Raises `PreflightError` naming what is missing.
    """
    config_json = _read_config(source) if isinstance(source, Path) else source
    inner: Any = config_json.get("text_config")
    config: Mapping[str, Any] = {**config_json, **inner} if isinstance(inner, dict) else config_json

    def number(*names: str, default: int | None = None) -> int:
        for name in names:
            value: Any = config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        if default is None:
            raise PreflightError(
                f"config.json of this model has no usable {names[0]!r}",
                hint="only decoder models with a transformers config can be trained",
            )
        return default

    hidden = number("hidden_size", "n_embd", "d_model")
    heads = number("num_attention_heads", "n_head", "num_heads")
    return ModelShape(
        hidden_size=hidden,
        n_layers=number("num_hidden_layers", "n_layer", "num_layers"),
        vocab_size=number("vocab_size"),
        n_heads=heads,
        n_kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=max(hidden // heads, 1)),
        intermediate_size=number(
            "moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden
        ),
        n_experts=number("num_experts", "num_local_experts", "n_routed_experts", default=1),
        n_active_experts=number("num_experts_per_tok", default=1),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_positions=number("max_position_embeddings", "n_positions", "n_ctx", default=2048),
        model_type=str(config.get("model_type", "")),
    )


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PreflightError(f"cannot read the model's {file.name}: {error}") from None
    if not isinstance(value, dict):
        raise PreflightError(f"the model's {file.name} is not a JSON object")
    return cast("dict[str, Any]", value)


def estimate_memory_gib(
    recipe: Recipe, shape: ModelShape, device: Literal["cpu", "cuda"], *, stage_index: int = 0
) -> MemoryEstimate:
    """Return the peak memory of training one stage on one device.

    Formulas: weights, gradients and AdamW's two moments by their bytes a number (ZeRO, arXiv
    1910.02054, section 3.1); activations per layer after Korthikanti et al. (arXiv 2205.05198,
    section 4.1) with GQA and a gated MLP; logits for one tile of TRL's chunked loss.
    """
    stage = recipe.stages[stage_index]
    weight_bytes = 4 if device == "cpu" else 2
    lora = isinstance(stage.adapter, LoraAdapter)
    trained = _trained_params(stage, shape)
    # PEFT keeps adapter weights in float32 also on a bfloat16 base; moments follow the weight's type.
    trained_bytes = 4 if lora else weight_bytes
    parts = {
        "weights": shape.n_params * weight_bytes + (trained * trained_bytes if lora else 0),
        "gradients": trained * trained_bytes,
        "optimizer": trained * _optimizer_bytes(stage, trained_bytes),
        "activations": _activation_bytes(stage, shape, weight_bytes),
        "logits": _logit_bytes(stage, shape),
    }
    gib = {name: size * _FRAGMENTATION / GIB for name, size in parts.items()}
    gib["runtime"] = _RUNTIME_GIB[device]
    return MemoryEstimate(
        total_gib=round(sum(gib.values()), 3), parts={name: round(size, 4) for name, size in gib.items()}
    )


def _trained_params(stage: SftStage, shape: ModelShape) -> int:
    if not isinstance(stage.adapter, LoraAdapter):
        return shape.n_params
    targets = stage.adapter.target_modules
    return shape.lora_params(stage.adapter.r, 7 if targets == "all-linear" else min(len(targets), 7))


def _optimizer_bytes(stage: SftStage, weight_bytes: int) -> float:
    """Bytes per trained weight: two moments, one byte each in 8 bit, about none for Adafactor."""
    if stage.optim == "adamw_8bit":
        return 2.0
    return 0.1 if stage.optim == "adafactor" else 2.0 * weight_bytes


def _activation_bytes(stage: SftStage, shape: ModelShape, weight_bytes: int) -> float:
    """Bytes kept for the backward pass over all layers for one micro-batch.

    A token of one layer keeps about: two norms' inputs and outputs and two residuals (6 h), queries
    and outputs (2 q), keys and values (2 k), and gate, up, activation and product (4 f of the active
    experts). LoRA keeps the same inputs. Checkpointing keeps one h a layer and recomputes one layer.
    Eager attention keeps the score matrix as well; SDPA on CPU and flash kernels do not.
    """
    tokens = stage.micro_batch * min(stage.max_length, shape.max_positions)
    queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    mlp = shape.intermediate_size * max(shape.n_active_experts, 1)
    per_layer = tokens * (6 * shape.hidden_size + 2 * queries + 2 * keys + 4 * mlp) * weight_bytes
    if stage.attn_implementation == "eager":
        per_layer += 2 * tokens * stage.max_length * shape.n_heads * weight_bytes
    if stage.gradient_checkpointing:
        return shape.n_layers * tokens * shape.hidden_size * weight_bytes + per_layer
    return shape.n_layers * per_layer


def _logit_bytes(stage: SftStage, shape: ModelShape) -> float:
    """Bytes of a tile of logits and its gradient in float32, and of the final hidden states of both."""
    tokens = stage.micro_batch * stage.max_length
    tile = min(tokens, _TILE_TOKENS) * min(shape.vocab_size, _TILE_VOCAB)
    return tile * 4 * 2 + tokens * shape.hidden_size * 4 * 2
