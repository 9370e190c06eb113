"""The world of `bench.evaluation`: a tiny random Qwen3 with LoRA adapters, and items that it is asked.

Everything is made on the spot, from a seed, in processes of their own (torch stays out of the measuring
one). The vocabulary comes from generated words, so that answers are words and not broken bytes. The model
has attention heads of size 32, the smallest that vLLM serves on CPU. The adapters are real PEFT adapters
with random weights: their answers are no use, and take as long as useful ones.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.rows import SplitName
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.training.plan import tiny_argv

REPOSITORY = Path(__file__).resolve().parents[1]
SPLITS: tuple[SplitName, ...] = ("val", "test")
BENCHMARK = "words"
MAX_NEW_TOKENS = 16
MAX_POSITIONS = 128
N_PROBES = 8
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ADAPTERS = """
import sys
import peft, torch, transformers
model, folder, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(count):
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted = peft.get_peft_model(base, lora)
    torch.manual_seed(seed + number)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(f"{folder}/adapter-{number}")
"""
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{gold}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {limit}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


class World(NamedTuple):
    """The model, its candidates and what they are asked.

    `root` also holds a task of lm-eval for each split, `<BENCHMARK>_<split>.yaml`.
    """

    root: Path
    model: Path
    adapters: list[Path]
    tasks: list[EvalTask]
    serve_python: Path
    seed: int

    @property
    def probes(self) -> list[str]:
        """The prompts of the canary, as a run picks them."""
        items = read_items(self.tasks[0].items_file, self.tasks[0].n_items)
        return [item.prompt for item in items[:N_PROBES]]


def make_world(root: Path, n_candidates: int, n_items: list[int], serve_python: Path, seed: int) -> World:
    """Make the items, the model and the adapters; nothing is downloaded."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = sorted({"".join(rng.choices(syllables, k=rng.randint(2, 3))) for _ in range(1500)})
    texts, model = root / "texts.jsonl", root / "model"
    lines = ({"text": " ".join(rng.choices(words, k=20))} for _ in range(2000))
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = {"vocab_size": 2000, "hidden": 64, "layers": 2, "heads": 2, "max_positions": MAX_POSITIONS}
    spec = {"texts": str(texts), "out": str(model), **sizes, "seed": seed}
    (root / "spec.json").write_text(json.dumps(spec))
    run([sys.executable, *tiny_argv(root / "spec.json")[1:]], cwd=root)
    run([sys.executable, "-c", ADAPTERS, str(model), str(root), str(n_candidates), str(seed)], cwd=root)
    tasks = [_task(root, split, count, words, rng) for split, count in zip(SPLITS, n_items, strict=True)]
    adapters = [root / f"adapter-{number}" for number in range(n_candidates)]
    return World(root, model, adapters, tasks, serve_python.absolute(), seed)


def _task(root: Path, split: SplitName, count: int, words: list[str], rng: random.Random) -> EvalTask:
    path, name = root / f"{split}.jsonl", f"{BENCHMARK}_{split}"
    rows = [
        {
            "item_id": f"{split}-{number}",
            # Numbered: a server keeps what it computed of equal beginnings.
            "prompt": f"{number} {split} " + " ".join(rng.choices(words, k=rng.randint(8, 16))) + "\n",
            "gold": rng.choice(words),
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / f"{name}.yaml").write_text(TASK.format(name=name, file=path, limit=MAX_NEW_TOKENS))
    return EvalTask(
        benchmark=BENCHMARK,
        split=split,
        items_file=path,
        n_items=count,
        scorer="exact_match",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def run(argv: list[str], *, cwd: Path, **variables: str) -> None:
    """Run a command to its end, offline; its output is shown only when it fails."""
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, **OFFLINE, "PYTHONPATH": paths, **variables}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)[:300]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
