"""Keys of other trainers and of older versions, by the name that LLaMA-Factory has for them.

TRL's names are what a person or an LLM mixes up most. `neutral` renames keep the value's meaning and
can be made by the program; the others only say what to write.
"""

from __future__ import annotations

from typing import NamedTuple


class Renamed(NamedTuple):
    """The key that is meant; `neutral`: the value stays right under the new name."""

    new: str
    neutral: bool = True
    why: str = ""


RENAMED: dict[str, Renamed] = {
    "lora_r": Renamed("lora_rank"),
    "r": Renamed("lora_rank"),
    "lora_target_modules": Renamed("lora_target", False, "a text: `all`, or names with commas"),
    "target_modules": Renamed("lora_target", False, "a text: `all`, or names with commas"),
    "max_seq_length": Renamed("cutoff_len"),
    "max_seq_len": Renamed("cutoff_len"),
    "model": Renamed("model_name_or_path"),
    "model_name": Renamed("model_name_or_path"),
    "base_model": Renamed("model_name_or_path"),
    "adapter": Renamed("adapter_name_or_path"),
    "checkpoint_dir": Renamed("adapter_name_or_path", True, "the name before version 0.8"),
    "attn_implementation": Renamed("flash_attn", False, "one of auto, disabled (eager), sdpa, fa2, fa3"),
    "use_peft": Renamed("finetuning_type", False, "true is `lora`, false is `full`"),
    "beta": Renamed("pref_beta"),
    "dpo_beta": Renamed("pref_beta", True, "the name before version 0.8"),
    "loss_type": Renamed("pref_loss", False, "one word"),
    "dpo_loss": Renamed("pref_loss", True, "the name before version 0.8"),
    "dpo_ftx": Renamed("pref_ftx", True, "the name before version 0.8"),
    "label_smoothing": Renamed("dpo_label_smoothing"),
    "desirable_weight": Renamed("kto_chosen_weight"),
    "undesirable_weight": Renamed("kto_rejected_weight"),
    "load_in_4bit": Renamed("quantization_bit", False, "`4`"),
    "load_in_8bit": Renamed("quantization_bit", False, "`8`"),
    "bnb_4bit_quant_type": Renamed("quantization_type"),
    "use_bnb_nested_quant": Renamed("double_quantization"),
    "datasets": Renamed("dataset", False, "names out of dataset_info.json, with commas"),
    "dataset_name": Renamed("dataset"),
    "completion_only_loss": Renamed("train_on_prompt", False, "the opposite: `false` trains answers only"),
    "assistant_only_loss": Renamed("mask_history", False, "`false` trains every assistant turn"),
    "chat_template": Renamed("template", False, "the name of one of the trainer's templates"),
    "lr": Renamed("learning_rate"),
    "epochs": Renamed("num_train_epochs"),
    "num_epochs": Renamed("num_train_epochs"),
    "batch_size": Renamed("per_device_train_batch_size"),
    "micro_batch_size": Renamed("per_device_train_batch_size"),
    "evaluation_strategy": Renamed("eval_strategy"),
    "no_cuda": Renamed("use_cpu"),
    "dtype": Renamed("bf16", False, "`true` for bfloat16; a merge has `infer_dtype`"),
    "torch_dtype": Renamed("bf16", False, "`true` for bfloat16; a merge has `infer_dtype`"),
    "output": Renamed("output_dir"),
}
"""Old or foreign key -> this trainer's. An entry counts only where the trainer does not know the old key."""
