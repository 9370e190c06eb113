"""What cross-field rules read: the facts of model, data and machine, and one stage with its place.

Every fact may be unknown (None or empty); an unknown fact switches the rules off that need it, so that
the same rules judge a file alone and a proposal inside a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.calibration import CalibrationFactor
from rdagent_ft.recipe.forecast import Throughput
from rdagent_ft.recipe.launch import Profile
from rdagent_ft.recipe.learnt import LearntRule
from rdagent_ft.recipe.model_shape import ModelShape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyTrainedStage
from rdagent_ft.values import Frozen

TINY_PARAMS = 50_000_000
"""Below so many weights a model trains at rates and for passes that would ruin a real one."""


class RuleFacts(Frozen):
    """What is known of model, data and machine. None or empty means unknown.

    Attributes:
        device, n_gpus: where training runs.
        n_params, hidden_size, vocab_size, max_positions: of the base model.
        shape: all sizes of the base model; switches the memory rule on.
        linear_names: last parts of the names of the base model's linear layers (`q_proj`).
        has_training_template: whether the chat template marks the assistant's turns.
        memory_gib: host memory a job may use.
        gpu_memory_gib: memory of one GPU.
        kernels: attention kernels that the environment has.
        bitsandbytes, vllm, math_verify: whether the training environment has the package.
        n_train_rows: rows of the train split.
        has_preferences: whether the run has a preference dataset (`--preferences`).
        n_preferences, n_desirable, n_undesirable: its rows, and its good and bad answers.
        has_scorer: whether the task scores an answer in code, so that samples can be told apart.
        has_tests: whether training rows have a `tests` column.
        has_teacher: whether FT_TEACHER_MODEL names an endpoint that writes answers (`data.teacher`).
        teacher_vocab_sizes: teacher as a recipe names it -> its vocabulary size; None where there is no
            such model; a teacher that is not listed is unknown.
        serve_max_lora_rank: largest rank that the server takes unmerged.
        can_contain: whether jobs run in containers, which code in a recipe needs.
        learnt: what this run's own failures forbid.
        trainer: what trains the stages; llamafactory cannot train all of them.
        model: the base model's name, as `memory_factors` have it.
        sharding: what the GPUs share out.
        tokens_per_row: of the mean training row, prompt and answer.
        memory_factors, speeds: what this run measured, the newest last.
        remaining_s: seconds that training may still take in this run.
        stage_limit_s: seconds that one stage may take.
    """

    device: Literal["cpu", "cuda"] | None = None
    n_gpus: int | None = None
    n_params: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    max_positions: int | None = None
    shape: ModelShape | None = None
    linear_names: tuple[str, ...] = ()
    has_training_template: bool | None = None
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    kernels: tuple[str, ...] = ()
    bitsandbytes: bool | None = None
    vllm: bool | None = None
    math_verify: bool | None = None
    n_train_rows: int | None = None
    has_preferences: bool | None = None
    n_preferences: int | None = None
    n_desirable: int | None = None
    n_undesirable: int | None = None
    has_scorer: bool | None = None
    has_tests: bool | None = None
    has_teacher: bool | None = None
    teacher_vocab_sizes: dict[str, int | None] = {}
    serve_max_lora_rank: int | None = None
    can_contain: bool | None = None
    learnt: tuple[LearntRule, ...] = ()
    trainer: Literal["trl", "llamafactory"] | None = None
    model: str | None = None
    sharding: Profile = "ddp"
    tokens_per_row: float | None = None
    memory_factors: tuple[CalibrationFactor, ...] = ()
    speeds: tuple[Throughput, ...] = ()
    remaining_s: float | None = None
    stage_limit_s: float | None = None


class StageCheck(Frozen):
    """One trained stage with its place and the facts, as rules read it."""

    key: str
    index: int
    stage: AnyTrainedStage
    recipe: Recipe
    facts: RuleFacts

    def problem(
        self, field: str, value: object, rule: str, fix: str, kind: str = "config.conflict"
    ) -> Problem:
        """Return a problem of one field of the stage."""
        return Problem(f"{self.key}.{field}", value, rule, kind, fix)


Rule = Callable[[StageCheck], Iterator[Problem]]
"""One cross-field rule: yields what it finds wrong with a stage; nothing for kinds it is not about."""
