"""The stages that a recipe chains: what each trains and every number that a planner may choose.

One class a kind, told apart by `kind`. What all trainings share stands in `TrainedStage`; what a field
means for one kind only stands there. Which sequences make sense is judged in `stage_order.py`,
cross-field rules in `rules.py`, trainer keys in `templates/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rdagent_ft.recipe.rewards import Reward
from rdagent_ft.values import Frozen

StageKind = Literal["sft", "dpo", "kto", "reward", "grpo", "distill", "merge"]

LearningRate = Annotated[float, Field(gt=0.0, le=1e7)]
Beta = Annotated[float, Field(ge=0.0, le=100.0)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Tokens = Annotated[int, Field(ge=8, le=1_048_576)]
Temperature = Annotated[float, Field(gt=0.0, le=5.0)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class LoraAdapter(Frozen):
    """Low-rank adapter (PEFT). `target_modules` is all linear layers unless a recipe says less.

    `quantization` `nf4` is QLoRA: the frozen base is held in 4 bits; a GPU with bitsandbytes is needed.
    `use_dora` splits magnitude from direction; such adapters are merged before they are served.
    Source of the default target: "LoRA Without Regret" (attention-only loses at equal size).
    """

    kind: Literal["lora"] = "lora"
    r: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1, le=2048)] = 32
    dropout: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False
    quantization: Literal["none", "nf4"] = "none"


class FullAdapter(Frozen):
    """All weights are trained."""

    kind: Literal["full"] = "full"


Adapter = Annotated[LoraAdapter | FullAdapter, Field(discriminator="kind")]


class TrainedStage(Frozen):
    """What every training has.

    Attributes:
        adapter: what is trained.
        learning_rate: peak, per optimizer step.
        lr_scheduler: shape after warm-up.
        warmup_ratio: share of all steps spent warming up (rendered as a float `warmup_steps`).
        epochs: passes over the data; ignored when `max_steps` is set.
        max_steps: optimizer steps; None means `epochs` decides.
        effective_batch: rows (prompts, pairs) per optimizer step over all devices and accumulation.
        micro_batch: sequences per device per forward pass; divides `effective_batch` (for `grpo`: it is
            lowered by the program until whole groups fit).
        max_length: tokens per row, prompt and answer; longer rows are cut at the right.
        weight_decay: AdamW weight decay.
        max_grad_norm: gradient clipping norm; 0 switches clipping off.
        attn_implementation: attention kernel; `auto` lets the program choose.
        gradient_checkpointing: recompute activations (about 20 % slower, less memory).
        optim: optimizer name of transformers.
        seed: seed of weights, dropout and data order inside the trainer.
        eval_share: share of the stage's own rows that the trainer holds out and measures on whenever it
            saves; rows of one prompt stay together. val and test are never read for it.
        keep: the weights that the stage leaves: of the `last` step, or of the `best` checkpoint on the
            held-out rows.
    """

    adapter: Adapter = LoraAdapter()
    learning_rate: LearningRate = 2e-4
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    effective_batch: Batch = 16
    micro_batch: Annotated[int, Field(ge=1, le=4_096)] = 8
    max_length: Tokens = 1024
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    attn_implementation: Literal["auto", "sdpa", "eager", "kernels-community/flash-attn2"] = "auto"
    gradient_checkpointing: bool = False
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "adafactor"] = "adamw_torch"
    seed: Seed = 42
    eval_share: Annotated[float, Field(ge=0.0, le=0.3)] = 0.0
    keep: Literal["last", "best"] = "last"


class SftStage(TrainedStage):
    """Supervised fine-tuning on answers (TRL `SFTTrainer`).

    Attributes:
        train_on: `last_turn` trains the last answer of a conversation (prompt/completion rows);
            `assistant_turns` trains every assistant turn, which needs a chat template that marks them.
        packing: several rows per sequence; needs a variable-length attention kernel.
        neftune_noise_alpha: embedding noise; None switches it off.
    """

    kind: Literal["sft"] = "sft"
    train_on: Literal["last_turn", "assistant_turns"] = "last_turn"
    packing: bool = False
    neftune_noise_alpha: Annotated[float, Field(gt=0.0, le=50.0)] | None = None


class PairSampling(Frozen):
    """Preference rows made from the model's own scored samples of training prompts.

    A prompt gives rows when its samples differ in score; a wrong sample is paired with a right one, or
    with the gold answer where no sample is right.

    Attributes:
        n_samples: answers asked for each prompt.
        temperature: of the sampling.
        max_prompts: at most so many prompts of the train split are asked.
    """

    n_samples: Annotated[int, Field(ge=1, le=64)] = 4
    temperature: Temperature = 1.0
    max_prompts: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000


class PreferenceStage(TrainedStage):
    """What trainings on preferences share.

    Attributes:
        pairs: `given` reads the run's preference dataset (`--preferences`); `sampled` makes rows from
            the model's own samples as `sampling` says.
        sampling: how samples are made; used with `pairs: sampled` only.
    """

    learning_rate: LearningRate = 5e-6
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    pairs: Literal["given", "sampled"] = "given"
    sampling: PairSampling = PairSampling()


DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "robust", "bco_pair", "sppo_hard", "aot", "apo_zero", "apo_down",
    "discopop", "sft",
]  # fmt: skip


class DpoStage(PreferenceStage):
    """Direct preference optimisation (TRL `DPOTrainer`); the reference is the model it starts from.

    Attributes:
        beta: strength of the pull to the reference.
        loss_type: one loss, or several that are added, as `[sigmoid, sft]`.
        loss_weights: one weight a loss; None weighs all 1.
        label_smoothing: assumed share of swapped pairs.
        precompute_ref_log_probs: score the reference once before training; saves its memory.
    """

    kind: Literal["dpo"] = "dpo"
    beta: Beta = 0.1
    loss_type: Annotated[tuple[DpoLoss, ...], Field(min_length=1, max_length=4)] = ("sigmoid",)
    loss_weights: tuple[Annotated[float, Field(ge=0.0, le=1000.0)], ...] | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    precompute_ref_log_probs: bool = False


class KtoStage(PreferenceStage):
    """Kahneman-Tversky optimisation on single answers marked good or bad (TRL `KTOTrainer`).

    Attributes:
        beta: strength of the pull to the reference.
        desirable_weight, undesirable_weight: weight of good and bad rows.
    """

    kind: Literal["kto"] = "kto"
    beta: Beta = 0.1
    desirable_weight: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    undesirable_weight: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0


class RewardStage(PreferenceStage):
    """A reward model on pairs (TRL `RewardTrainer`): a side branch that a later `grpo` stage asks.

    Attributes:
        center_rewards_coefficient: pulls the mean reward to 0; None leaves it free.
    """

    kind: Literal["reward"] = "reward"
    learning_rate: LearningRate = 1e-4
    center_rewards_coefficient: Annotated[float, Field(gt=0.0, le=10.0)] | None = 0.01


class GrpoStage(TrainedStage):
    """Group-relative policy optimisation on verifiable rewards (TRL `GRPOTrainer`, RLVR).

    Attributes:
        rewards: what scores a completion; each has a weight.
        num_generations: completions of one prompt that are compared; the advantage is relative to them.
        max_completion_length: tokens of a completion.
        beta: strength of the pull to the reference; 0 needs no reference model.
        temperature: of the sampling.
        loss_type, scale_rewards, epsilon, epsilon_high: see TRL's GRPO paper index; `dapo` with
            `epsilon_high` 0.28 is DAPO's clip-higher.
        mask_truncated_completions: leave completions that hit the limit out of the loss.
        use_vllm: generate with vLLM beside the trainer (a GPU and the package are needed).
        vllm_gpu_memory_utilization: share of GPU memory for vLLM; it sleeps while weights are trained.
    """

    kind: Literal["grpo"] = "grpo"
    learning_rate: LearningRate = 1e-5
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "constant"
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1, max_length=8)]
    num_generations: Annotated[int, Field(ge=2, le=256)] = 8
    max_completion_length: Tokens = 256
    beta: Beta = 0.0
    temperature: Temperature = 1.0
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    epsilon: Annotated[float, Field(gt=0.0, le=10.0)] = 0.2
    epsilon_high: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    mask_truncated_completions: bool = False
    use_vllm: bool = False
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3


class DistillStage(TrainedStage):
    """On-policy distillation: the teacher scores the student's own samples (TRL `DistillationTrainer`).

    Off-policy distillation is `sft` on rows that a teacher wrote: `data.teacher`.

    Attributes:
        teacher: a model folder, or a name under `models/`; its vocabulary must be the student's.
        beta: 0 is forward, 1 reverse KL divergence.
        temperature: of sampling and of both distributions.
        max_completion_length: tokens of a sample.
    """

    kind: Literal["distill"] = "distill"
    teacher: Annotated[str, Field(min_length=1, max_length=500)]
    learning_rate: LearningRate = 1e-4
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    beta: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    temperature: Temperature = 1.0
    max_completion_length: Tokens = 256


class MergeStage(Frozen):
    """The adapter of the stage before is merged into its base, in float32, and proven equal."""

    kind: Literal["merge"] = "merge"


AnyPreferenceStage = DpoStage | KtoStage | RewardStage
AnyTrainedStage = SftStage | DpoStage | KtoStage | RewardStage | GrpoStage | DistillStage
Stage = Annotated[AnyTrainedStage | MergeStage, Field(discriminator="kind")]

STAGE_CLASSES: dict[str, type[Frozen]] = {
    "sft": SftStage,
    "dpo": DpoStage,
    "kto": KtoStage,
    "reward": RewardStage,
    "grpo": GrpoStage,
    "distill": DistillStage,
    "merge": MergeStage,
}
"""Kind -> class, for reading errors and for generated documents."""
