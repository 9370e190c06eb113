"""The forms in which a model is handed on, and how each is loaded and served: for cards and manifests."""

from __future__ import annotations

from typing import Literal, get_args

from rdagent_ft.values import Frozen

Form = Literal["adapter", "merged_16bit", "merged_4bit", "gguf"]
FORMS: tuple[Form, ...] = get_args(Form)
MARKER = "<!-- written by rdagent-ft -->"
"""Stands in every card of ours: a README without it belongs to somebody else."""

FORM_WORDS: dict[Form, str] = {
    "adapter": "LoRA adapter; the base model is needed beside it",
    "merged_16bit": "whole model, weights in bfloat16",
    "merged_4bit": "whole model, weights in 4 bits (bitsandbytes NF4, double quantisation)",
    "gguf": "whole model as GGUF, for llama.cpp and Ollama",
}
LIBRARIES: dict[Form, str] = {
    "adapter": "peft",
    "merged_16bit": "transformers",
    "merged_4bit": "transformers",
    "gguf": "gguf",
}
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class CardPlace(Frozen):
    """Where a card stands.

    Attributes:
        form: what lies beside it; `run` is a run's own `export/` with `adapter/` and `merged/`.
        reference: what a reader passes to a loader: a repository's id, or `.` for the folder itself.
        notes: how the form differs from what was scored, one sentence each.
        weights: name of the GGUF file.
    """

    form: Form | Literal["run"] = "run"
    reference: str = "."
    notes: tuple[str, ...] = ()
    weights: str | None = None

    @property
    def adapter(self) -> str | None:
        """What loads the adapter; None where there is none."""
        return {"run": "adapter", "adapter": self.reference}.get(self.form)

    @property
    def merged(self) -> str | None:
        """What loads the whole model with transformers; None where there is none."""
        forms = {"run": "merged", "merged_16bit": self.reference, "merged_4bit": self.reference}
        return forms.get(self.form)


def served_rank(rank: int) -> int | None:
    """Return the smallest `--max-lora-rank` of vLLM that holds an adapter's rank; None when none does."""
    return next((known for known in _VLLM_RANKS if known >= rank), None)
