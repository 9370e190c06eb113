"""The sizes of a decoder model, from its `config.json`: what forecasts of memory and time are made of.

Counts come from the config's sizes. A caller that has read the weight files' headers passes the true
number on (`with_stored_params`). Not covered: vision towers, encoders, state-space layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import PreflightError
from rdagent_ft.values import Frozen

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of one block, as most families name them."""
_QK_NORM = ("qwen3", "gemma3", "olmo2")
_FOUR_NORMS = ("gemma2", "gemma3")


class ModelShape(Frozen):
    """What memory and time depend on.

    Attributes:
        hidden_size, n_layers, vocab_size: sizes of the decoder.
        n_heads, n_kv_heads, head_dim: attention; fewer key/value heads is GQA.
        intermediate_size: width of one MLP (of one expert for MoE).
        shared_intermediate_size: width of the MLP that every token passes beside the experts; 0 for none.
        n_experts, n_active_experts: 1 for dense models.
        tied_embeddings: whether the head shares the embedding's weights.
        max_positions: context length in tokens.
        model_type: family as transformers names it.
        stored_params: number of weights that the files hold; None when they were not read.
    """

    hidden_size: int
    n_layers: int
    vocab_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    n_experts: int = 1
    n_active_experts: int = 1
    tied_embeddings: bool = False
    max_positions: int = 2048
    model_type: str = ""
    stored_params: int | None = None

    @property
    def queries(self) -> int:
        """Numbers of one token's queries."""
        return self.n_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers of one token's keys; as many as its values."""
        return self.n_kv_heads * self.head_dim

    @property
    def active_width(self) -> int:
        """MLP width that one token passes: all active experts and the shared one."""
        return self.intermediate_size * max(self.n_active_experts, 1) + self.shared_intermediate_size

    @property
    def n_norms(self) -> int:
        """Norms over the hidden state in one layer."""
        return 4 if self.model_type.startswith(_FOUR_NORMS) else 2

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normalised before attention."""
        return self.model_type.startswith(_QK_NORM)

    @property
    def embedding_params(self) -> int:
        """Weights of the embedding, which the head may share."""
        return self.vocab_size * self.hidden_size

    @property
    def attention_params(self) -> int:
        """Weights of one layer's four attention projections."""
        return 2 * self.hidden_size * (self.queries + self.keys)

    @property
    def layer_params(self) -> int:
        """Weights of one layer: four attention projections and three MLP matrices per expert."""
        width = self.intermediate_size * self.n_experts + self.shared_intermediate_size
        return self.attention_params + 3 * self.hidden_size * width

    @property
    def n_params(self) -> int:
        """Number of weights: as stored when known, else by the sizes (norms and biases are below 0.1 %)."""
        if self.stored_params is not None:
            return self.stored_params
        return self.embedding_params * (1 if self.tied_embeddings else 2) + self.n_layers * self.layer_params

    @property
    def linear_params(self) -> int:
        """Weights in the layers' matrices: what 4-bit loading shrinks. Embedding and head stay wide."""
        return self.n_layers * self.layer_params

    @property
    def multiplied_params(self) -> int:
        """Weights that one token is multiplied with: the active experts' and the head's."""
        layer = self.attention_params + 3 * self.hidden_size * self.active_width
        return self.n_layers * layer + self.embedding_params

    def lora_params(self, r: int, targets: tuple[str, ...] = LINEAR_LAYERS) -> int:
        """Weights of LoRA with rank `r` on the named linear layers of every block.

        A matrix of a x b gets r * (a + b) weights (LoRA, arXiv 2106.09685). A name that is not in
        `LINEAR_LAYERS` (other families' names) counts as the mean of the seven.
        """
        return r * self.n_layers * round(sum(self._sides(name)[0] for name in targets))

    def dora_params(self, targets: tuple[str, ...] = LINEAR_LAYERS) -> int:
        """Magnitudes of DoRA: one number for each output of a target (arXiv 2402.09353)."""
        return self.n_layers * round(sum(self._sides(name)[1] for name in targets))

    def _sides(self, name: str) -> tuple[float, float]:
        """Return (inputs + outputs, outputs) of a linear layer, over all experts."""
        hidden = self.hidden_size
        width = self.intermediate_size * self.n_experts + self.shared_intermediate_size
        n_mlps = self.n_experts + bool(self.shared_intermediate_size)
        sides: dict[str, tuple[float, float]] = {
            "q_proj": (hidden + self.queries, self.queries),
            "k_proj": (hidden + self.keys, self.keys),
            "v_proj": (hidden + self.keys, self.keys),
            "o_proj": (self.queries + hidden, hidden),
            "gate_proj": (hidden * n_mlps + width, width),
            "up_proj": (hidden * n_mlps + width, width),
            "down_proj": (hidden * n_mlps + width, hidden * n_mlps),
        }
        known = sides.get(name.split(".")[-1])
        if known is not None:
            return known
        both, outputs = zip(*sides.values(), strict=True)
        return sum(both) / len(sides), sum(outputs) / len(sides)


def with_stored_params(shape: ModelShape, n_params: int) -> ModelShape:
    """Return the shape with the number of weights that the files' headers count.

    Only for weights stored as floats: packed 4-bit files hold fewer numbers than the model has weights.
    """
    return shape.model_copy(update={"stored_params": n_params})


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
    width = number("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    return ModelShape(
        hidden_size=hidden,
        n_layers=number("num_hidden_layers", "n_layer", "num_layers"),
        vocab_size=number("vocab_size"),
        n_heads=heads,
        n_kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=max(hidden // heads, 1)),
        intermediate_size=width,
        shared_intermediate_size=_shared_width(config, width),
        n_experts=number("num_experts", "num_local_experts", "n_routed_experts", default=1),
        n_active_experts=number("num_experts_per_tok", default=1),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_positions=number("max_position_embeddings", "n_positions", "n_ctx", default=2048),
        model_type=str(config.get("model_type", "")),
    )


def _shared_width(config: Mapping[str, Any], width: int) -> int:
    """Return the width of the MLP beside the experts: written out (Qwen) or as a number of experts."""
    written: Any = config.get("shared_expert_intermediate_size")
    if isinstance(written, int):
        return written
    experts: Any = config.get("n_shared_experts")
    return experts * width if isinstance(experts, int) else 0


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PreflightError(f"cannot read the model's {file.name}: {error}") from None
    if not isinstance(value, dict):
        raise PreflightError(f"the model's {file.name} is not a JSON object")
    return cast("dict[str, Any]", value)
