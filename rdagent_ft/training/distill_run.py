# pyright: basic
"""On-policy distillation through TRL's `DistillationTrainer`: what it adds to `stage_run`.

The teacher's and the student's next-token distributions are compared token by token, so both must
number their tokens alike; that is checked on their files before any weight is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdagent_ft.training.grpo_run import refuse_too_few
from rdagent_ft.training.job_files import fail
from rdagent_ft.training.stage_run import Method, Setup

COLUMNS = ("prompt",)


def _config() -> type:
    from trl.trainer.distillation_config import DistillationConfig

    return DistillationConfig


def _build(setup: Setup) -> Any:
    from trl.trainer.distillation_trainer import DistillationTrainer

    args = setup.training_args
    teacher = args.teacher_model_name_or_path
    if teacher is None:
        raise SystemExit("a distillation needs `teacher_model_name_or_path` in its config")
    refuse_too_few(
        setup, args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    )
    _check_vocabulary(setup, teacher)
    # The teacher is never quantised: its distribution is what the student is trained to match.
    args.teacher_model_init_kwargs = {
        "attn_implementation": setup.model_args.attn_implementation,
        "dtype": setup.model_args.dtype,
        **(args.teacher_model_init_kwargs or {}),
    }
    return DistillationTrainer(teacher_model=teacher, **setup.common())


def _check_vocabulary(setup: Setup, teacher: str) -> None:
    """End the job when the two models have other vocabulary sizes or number a token differently."""
    from transformers import AutoConfig, AutoTokenizer

    student = setup.model_args.model_name_or_path
    sizes = [
        AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config().vocab_size
        for name in (student, teacher)
    ]
    if sizes[0] != sizes[1]:
        message = f"the student has {sizes[0]} tokens and the teacher {sizes[1]}"
        fail(setup.paths.failure, "distill.vocabulary", message, student=sizes[0], teacher=sizes[1])
    if not (Path(teacher) / "tokenizer_config.json").is_file():
        return  # a teacher without a tokenizer: only the sizes can be compared
    mine, its = (AutoTokenizer.from_pretrained(name).get_vocab() for name in (student, teacher))
    differing = sorted(word for word in mine.keys() | its.keys() if mine.get(word) != its.get(word))
    if differing:
        message = f"{len(differing)} tokens have other numbers in the teacher, such as {differing[0]!r:.80}"
        fail(setup.paths.failure, "distill.vocabulary", message, n_differing=len(differing))


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    return {"n_rows_trained": len(trainer.train_dataset)}


METHOD = Method("distill", _config, COLUMNS, ("prompt",), _build, _check)
