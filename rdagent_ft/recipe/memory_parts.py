"""The bytes that one device holds while a stage trains, part by part: formulas for `memory.py`.

The numbers kept for the backward pass were counted on the saved tensors of transformers 5.23 (Qwen3,
Qwen2, Llama; float32 and bfloat16 with autocast; all weights and LoRA on all linear layers); they agree
with Korthikanti et al. (arXiv 2205.05198, section 4.1) for a gated MLP and GQA. Bytes of weights,
gradients and moments: ZeRO (arXiv 1910.02054, section 3.1). Not covered: expert and tensor parallelism.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from rdagent_ft.recipe.launch import Profile
from rdagent_ft.recipe.model_shape import LINEAR_LAYERS, ModelShape
from rdagent_ft.recipe.stages import AnyTrainedStage, LoraAdapter

Device = Literal["cpu", "cuda"]

# TRL 1.16 scores tokens in tiles of this many tokens by this many words (`kernels/chunked_logprob.py`).
TILE_TOKENS, TILE_VOCAB = 4096, 32_768
# Without Triton a tile is folded by plain torch operations, each with a float32 copy
# (`_backward_tile`: 8.2 tiles at its peak, measured on 500 to 4,096 tokens by 1,024 to 32,768 words).
_TORCH_TILES = 7.25
# 4 bits, and double quantisation's 8-bit constant a block of 64 (QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = 0.5 + 0.127 / 8
# DeepSpeed ZeRO keeps float32 copies of trained weights; its gradient bucket holds 5e8 numbers.
_MASTER_BYTES = 4
_BUCKET_NUMBERS = 5e8
_VARLEN = ("kernels-community/flash-attn2",)


class Dtypes(NamedTuple):
    """Bytes of one number: of the model, and of what is trained."""

    model: int
    trained: int


def dtypes(stage: AnyTrainedStage, device: Device) -> Dtypes:
    """Return the widths: float32 on CPU, bfloat16 on GPU.

    PEFT keeps adapters in float32 also on a bfloat16 base; TRL switches that off for a 4-bit base.
    """
    model = 4 if device == "cpu" else 2
    if isinstance(stage.adapter, LoraAdapter):
        return Dtypes(model, model if stage.adapter.quantization == "nf4" else 4)
    return Dtypes(model, model)


def lora_targets(adapter: LoraAdapter) -> tuple[str, ...]:
    """Return the names of the adapted layers; `all-linear` are the seven of a block."""
    return LINEAR_LAYERS if adapter.target_modules == "all-linear" else adapter.target_modules


def trained_params(stage: AnyTrainedStage, shape: ModelShape) -> int:
    """Return how many weights get gradients. A reward model has no head of the vocabulary's size."""
    adapter = stage.adapter
    if isinstance(adapter, LoraAdapter):
        targets = lora_targets(adapter)
        return shape.lora_params(adapter.r, targets) + (shape.dora_params(targets) if adapter.use_dora else 0)
    return shape.n_params - _head_left_out(stage, shape)


def model_bytes(stage: AnyTrainedStage, shape: ModelShape, width: int) -> float:
    """Return the bytes of the base model's weights as they are loaded."""
    n_params = shape.n_params - _head_left_out(stage, shape)
    if isinstance(stage.adapter, LoraAdapter) and stage.adapter.quantization == "nf4":
        linear = min(shape.linear_params, n_params)
        return linear * NF4_BYTES + (n_params - linear) * width
    return n_params * width


def _head_left_out(stage: AnyTrainedStage, shape: ModelShape) -> int:
    return shape.embedding_params if stage.kind == "reward" and not shape.tied_embeddings else 0


def optimizer_bytes(stage: AnyTrainedStage, width: int) -> float:
    """Return bytes per trained weight: two moments, one byte each in 8 bit, about none for Adafactor."""
    if stage.optim == "adamw_8bit":
        return 2.0
    return 0.1 if stage.optim == "adafactor" else 2.0 * width


def step_bytes(stage: AnyTrainedStage, device: Device, width: int) -> float:
    """Return bytes per trained weight that the optimizer's step needs for a moment (`foreach` on GPUs)."""
    return float(width) if device == "cuda" and stage.optim in ("adamw_torch", "adafactor") else 0.0


def layer_numbers(stage: AnyTrainedStage, shape: ModelShape, width: int, row_tokens: int) -> float:
    """Return the numbers of the model's width that one token of one layer keeps for the backward pass.

    A norm keeps its input (in float32), the normalised state if its own weight is trained, and its
    output where a float32 linear layer reads it. Under autocast LoRA keeps its own copy of each input.
    """
    adapter, narrow = stage.adapter, width < 4
    hidden, queries, keys, mlp = shape.hidden_size, shape.queries, shape.keys, shape.active_width
    lora = isinstance(adapter, LoraAdapter)
    a_norm = (2 if narrow else 1) + (0 if lora else 1) + (0 if lora and narrow else 1)
    numbers = shape.n_norms * a_norm * hidden + 4 * mlp + _attention_numbers(stage, shape, width, row_tokens)
    if shape.has_qk_norm:
        numbers += (1 + narrow + (not lora)) * (queries + keys)
    if isinstance(adapter, LoraAdapter):
        inputs = 5 * hidden + queries + mlp
        if narrow:
            numbers += 5 * hidden + queries
        if adapter.dropout:
            numbers += (2.0 if narrow else 1.45) * inputs
        if adapter.use_dora:
            numbers += inputs + 2 * (2 * hidden + queries + 2 * keys + 2 * mlp)
        numbers += adapter.r * len(lora_targets(adapter))
    return numbers


def _attention_numbers(stage: AnyTrainedStage, shape: ModelShape, width: int, row_tokens: int) -> float:
    """Return what attention keeps. A padded batch spreads keys and values over all heads and keeps a mask."""
    if stage.attn_implementation in _VARLEN:
        return 2 * shape.queries + 2 * shape.keys + shape.n_heads
    padded = stage.micro_batch > 1 or stage.kind in ("dpo", "reward", "grpo", "distill")
    kept = 2 * shape.queries + 2 * (shape.queries if padded else shape.keys) + shape.n_heads
    kept += row_tokens if padded else 0
    if stage.attn_implementation == "eager":
        kept += row_tokens * shape.n_heads * (2 if width == 4 else 4)
    return kept


def activation_bytes(
    stage: AnyTrainedStage, shape: ModelShape, width: int, n_tokens: int, row_tokens: int
) -> float:
    """Return the bytes kept for the backward pass over all layers of `n_tokens`, and one layer's gradients.

    Checkpointing keeps one hidden state a layer and recomputes one layer at a time.
    """
    a_layer = n_tokens * layer_numbers(stage, shape, width, row_tokens) * width
    passing = n_tokens * (3 * shape.active_width + 3 * shape.hidden_size) * width
    if isinstance(stage.adapter, LoraAdapter):
        passing += dequantised_bytes(stage.adapter, shape, width)
    if stage.gradient_checkpointing:
        return shape.n_layers * n_tokens * shape.hidden_size * width + a_layer + passing
    return shape.n_layers * a_layer + passing


def dequantised_bytes(adapter: LoraAdapter, shape: ModelShape, width: int) -> float:
    """Return the bytes of one matrix that a 4-bit layer widens, or that DoRA multiplies out, for a moment."""
    matrix = shape.hidden_size * max(shape.intermediate_size, shape.queries)
    return matrix * width * (adapter.quantization == "nf4") + 3 * matrix * 4 * adapter.use_dora


def forward_bytes(shape: ModelShape, width: int, n_tokens: int) -> float:
    """Return the bytes of a forward pass that keeps nothing: one layer's widest moment."""
    widest = max(3 * shape.active_width, 4 * shape.queries) + 4 * shape.hidden_size
    return n_tokens * widest * width


def tile_bytes(shape: ModelShape, device: Device, width: int, n_tokens: int, *, n_models: int = 1) -> float:
    """Return the bytes of one tile of logits, in the width of the model, with what folds it.

    A GPU's kernel folds in place and allocates whole tiles; on CPU only the used part is ever touched,
    and plain torch operations keep float32 copies. A divergence holds tiles of both models in float32.
    """
    rows = min(n_tokens, TILE_TOKENS)
    if device == "cuda":
        return rows * TILE_VOCAB * (width if n_models == 1 else 4 * n_models)
    return rows * min(shape.vocab_size, TILE_VOCAB) * 4 * (n_models + _TORCH_TILES)


def head_bytes(stage: AnyTrainedStage, shape: ModelShape, width: int, n_tokens: int) -> float:
    """Return the bytes around the head: final states, their float32 gradient, and the trained head's own."""
    states = n_tokens * shape.hidden_size * (3 * width + 8)
    trained = not isinstance(stage.adapter, LoraAdapter) and stage.kind != "reward"
    return states + (shape.embedding_params * (4 + width) if trained else 0)


def cache_bytes(shape: ModelShape, width: int, n_sequences: int, row_tokens: int) -> float:
    """Return the bytes of keys and values of sequences that are generated together, and their logits.

    Growing a layer's cache copies it; sampling holds about three float32 copies of the last logits.
    """
    a_layer = 2 * shape.keys * width * n_sequences * row_tokens
    return (shape.n_layers + 1) * a_layer + n_sequences * shape.vocab_size * 4 * 3


class Shares(NamedTuple):
    """Bytes of one device under a sharding: what lies there, and what passes through."""

    weights: float
    gradients: float
    optimizer: float
    communication: float


def sharded(
    sharding: Profile, n_devices: int, shape: ModelShape, *,
    base: float, trained: int, widths: Dtypes, moments: float, is_adapter: bool,
) -> Shares:  # fmt: skip
    """Return one device's part of base weights (`base` bytes), gradients and optimizer state.

    With `ddp` every device holds all, and its buckets hold the gradients once more. ZeRO-2 shards
    gradients and optimizer with float32 master weights; ZeRO-3 and FSDP2 shard the weights too and gather
    two layers, or the embedding, at a time. FSDP2 in accelerate trains float32 weights.
    """
    own = trained * widths.trained if is_adapter else 0.0
    if sharding == "ddp" or n_devices == 1:
        gradients = trained * widths.trained
        buckets = gradients if n_devices > 1 else 0.0
        return Shares(base + own, gradients, trained * moments, buckets)
    wide = moments if moments < 2 * widths.trained else 2.0 * _MASTER_BYTES
    gathered = max(2 * shape.layer_params, shape.embedding_params) * widths.model
    if sharding == "fsdp2":
        held = own if is_adapter else 0.0
        weights = base + held if is_adapter else trained * float(_MASTER_BYTES)
        return Shares(
            weights / n_devices, trained * _MASTER_BYTES / n_devices, trained * wide / n_devices, gathered
        )
    optimizer = trained * (wide + _MASTER_BYTES) / n_devices
    gradients = trained * widths.trained / n_devices
    bucket = min(trained, _BUCKET_NUMBERS) * widths.trained
    if sharding == "zero2":
        return Shares(base + own, gradients, optimizer, bucket)
    return Shares((base + own) / n_devices, gradients, optimizer, bucket + gathered)
