# pyright: basic
"""A local model behind lm-eval's `hf` backend, so that its answers repeat and its prompts are ours.

Only the evaluation job imports this: torch, transformers, peft and lm_eval load at import. Three
things differ from the stock backend, each for a reason:

- prompts become the token ids that TRL trains on: `plain` text with the tokenizer's own special
  tokens, `chat` text (template applied) without any;
- decoding follows the task under one fresh generation config: a checkpoint's own one (temperature,
  repetition_penalty) would give base and tuned different protocols;
- generation ends at EOS ids, not by decoding the batch after every step, and it is recorded why an
  answer ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval
import peft
import torch
import transformers
from lm_eval.models.huggingface import HFLM

from rdagent_ft.evaluation.lm_eval_tokens import prompt_tokens

BACKEND = "hf"
N_CANARY_PROMPTS = 8
_Backend: Any = HFLM  # its decorator hides its type


class Loaded(NamedTuple):
    """A model in memory with its tokenizer, its EOS ids and what the record says of it."""

    model: Any
    tokenizer: Any
    eos_ids: list[int]
    facts: dict[str, Any]


def pick_device(wanted: str) -> str:
    """Return `cuda` or `cpu`. A GPU that was asked for and is not there is an error, never a fallback."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("the job asked for a GPU and torch sees none")
    return wanted


def versions() -> dict[str, str]:
    """Return package -> version of what generated the answers."""
    return {
        "lm_eval": lm_eval.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "peft": peft.__version__,
    }


def load(path: str, adapter: str | None, device: str) -> Loaded:
    """Load a model directory and, when given, the LoRA adapter on it. Safetensors only, no remote code.

    float32 on CPU, bfloat16 elsewhere.
    """
    started = time.monotonic()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        path, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {path} has no EOS token: answers would never end")
    model_class: Any = transformers.AutoModelForCausalLM
    model = model_class.from_pretrained(
        path,
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).to(device)
    own_eos = model.generation_config.eos_token_id if model.generation_config else None
    own_ids = own_eos if isinstance(own_eos, list) else [] if own_eos is None else [own_eos]
    eos_ids = sorted({tokenizer.eos_token_id, *own_ids})
    # Before the adapter wraps it: generate() fills what a call leaves open from the model's own config.
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos_ids)
    if adapter is not None:
        if not (Path(adapter) / "adapter_model.safetensors").is_file():
            raise FileNotFoundError(f"{adapter} holds no adapter_model.safetensors")
        model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=False)
    model.eval()
    facts = {
        "adapter": adapter is not None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "eos_token_ids": eos_ids,
        "load_s": round(time.monotonic() - started, 3),
    }
    return Loaded(model, tokenizer, eos_ids, facts)


def wrap(loaded: Loaded, *, prompt_format: str, batch_size: int) -> LocalModel:
    """Return the model as lm-eval takes it."""
    lm = LocalModel(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    lm.eos_ids = loaded.eos_ids
    lm.add_special = prompt_format == "plain"
    lm.facts = loaded.facts
    return lm


def open_model(model: dict[str, Any], request: dict[str, Any], device: str, batch_size: int) -> LocalModel:
    """Return a model of an evaluation request, ready to answer."""
    loaded = load(model["path"], model["adapter"], device)
    return wrap(loaded, prompt_format=request["prompt_format"], batch_size=batch_size)


def arguments_of(model: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the model's arguments as lm-eval names them."""
    return {"pretrained": model["path"], "peft": model["adapter"], "device": device}


class LocalModel(_Backend):
    """lm-eval's hf backend with our tokenisation, our decoding and a record of how answers ended."""

    eos_ids: list[int]
    add_special: bool
    facts: dict[str, Any]
    endings: dict[str, tuple[str, int]]
    temperature: float = 0.0
    repetition_penalty: float = 1.0
    on_batch: Callable[[int], None] | None = None

    def encode(self, prompt: str) -> list[int]:
        """Return the prompt's token ids as training has them."""
        return prompt_tokens(self.tokenizer, prompt, add_special=self.add_special)

    def start_repeat(self, repeat: int) -> None:
        """Begin a further round of answers: sampled ones depend on its number."""
        torch.manual_seed(repeat)
        self.endings = {}

    def tok_encode(self, string, add_special_tokens=None, left_truncate_len=None, **kwargs):
        """Return the ids of one text (lm-eval sorts requests by their length)."""
        return self.encode(string)

    def tok_batch_encode(self, strings, padding_side="left", left_truncate_len=None, truncation=False):
        """Return left-padded ids and mask of one batch, and remember the batch."""
        self._batch = list(strings)
        ids = [self.encode(text)[-(left_truncate_len or 0) :] for text in strings]
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id
        padded = [[pad] * (width - len(row)) + row for row in ids]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
        return torch.tensor(padded), torch.tensor(mask)

    def generate_until(self, requests, disable_tqdm=False):
        """Generate without a progress bar: the log is read by programs, progress has its own file."""
        return super().generate_until(requests, disable_tqdm=True)

    def _model_generate(self, context, max_length, stop, **generation_kwargs):
        n_prompt = context.shape[1]
        config = transformers.GenerationConfig(
            max_new_tokens=max_length - n_prompt,
            do_sample=self.temperature > 0,
            temperature=self.temperature if self.temperature > 0 else None,
            repetition_penalty=self.repetition_penalty if self.repetition_penalty != 1.0 else None,
            eos_token_id=self.eos_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
        )
        tokens = self.model.generate(
            input_ids=context, attention_mask=generation_kwargs["attention_mask"], generation_config=config
        )
        for row, prompt in enumerate(self._batch):
            answer = tokens[row, n_prompt:]
            ends = torch.isin(answer, torch.tensor(self.eos_ids, device=answer.device)).nonzero()
            n_tokens = int(ends[0]) if len(ends) else len(answer)
            self.endings[prompt] = ("stop" if len(ends) else "length", n_tokens)
            answer[n_tokens:] = self.tokenizer.eos_token_id  # padding must not be decoded into the answer
        if self.on_batch is not None:
            self.on_batch(len(self._batch))
        return tokens

    def loglikelihood(self, requests, disable_tqdm=False):
        """Score continuations without a progress bar."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def get_model_info(self):
        """Return nothing: the stock one asks the hub for a revision."""
        return {}

    def canary(self, prompts: list[str]) -> dict[str, Any]:
        """Return whether the adapter changes the next-token logits of at least one prompt."""
        if not isinstance(self.model, peft.PeftModel):
            return {"adapter_differs": None, "canary_max_abs_diff": None}
        largest = 0.0
        for prompt in prompts[:N_CANARY_PROMPTS]:
            ids = torch.tensor([self.encode(prompt)[-self.max_length :]], device=self.device)
            with torch.no_grad():
                adapted = self.model(input_ids=ids).logits[0, -1].float()
                with self.model.disable_adapter():
                    plain = self.model(input_ids=ids).logits[0, -1].float()
            difference = (adapted - plain).abs().max().item()
            if not math.isfinite(difference):
                return {"adapter_differs": False, "canary_max_abs_diff": None}
            largest = max(largest, difference)
        return {"adapter_differs": largest > 0, "canary_max_abs_diff": largest}
