# pyright: basic
"""Let TRL's own parser judge configs: `python trl_parse_job.py METHOD CONFIG [METHOD CONFIG …]`. V2.

Runs in the training environment and prints one JSON line for all of them. The parser is used in this
process, not through `trl METHOD`, whose message for an unknown key blames `accelerate launch`. CPU and
offline: neither a GPU nor the model is needed. Imports nothing of this package, so that it runs anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import sys
import tempfile

METHODS = ("sft", "dpo", "kto", "reward", "grpo", "rloo", "distillation")
UNKNOWN = re.compile(r"'--([A-Za-z0-9_]+)'")


def parse(method: str, path: str) -> list[dict[str, str]]:
    """Return what the parser says: one entry per problem with key, rule and class."""
    import yaml

    with open(path, encoding="utf-8") as stream:
        config = yaml.safe_load(stream)
    if not isinstance(config, dict):
        return [{"key": "file", "rule": "must be a mapping", "class": "config.syntax"}]
    config.pop("env", None)
    # The device is not judged here: bf16 passes the parser on a CPU only when `use_cpu` is set.
    config.update(use_cpu=True, push_to_hub=False)
    config.pop("tf32", None)
    # A new one for each config: a parser keeps the values of the file before as its defaults.
    parser = importlib.import_module(f"trl.scripts.{method}").make_parser()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as copy:
        yaml.safe_dump(config, copy)
        copy.flush()
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                parser.parse_args_and_config(["--config", copy.name])
        except SystemExit:
            return [_entry(errors.getvalue().strip().splitlines()[-1])]
        except (ValueError, TypeError, ImportError, OSError, KeyError) as error:
            return _entries(str(error))
    return []


def _entries(message: str) -> list[dict[str, str]]:
    if "Unknown arguments from config file" in message:
        return [
            {"key": key, "rule": "is unknown to the trainer", "class": "config.unknown_key"}
            for key in UNKNOWN.findall(message)
        ]
    return [_entry(message)]


def _entry(message: str) -> dict[str, str]:
    named = re.search(r"argument --([A-Za-z0-9_]+)|`?--?([a-z0-9_]{4,})`?", message)
    key = next((group for group in named.groups() if group), "config") if named else "config"
    problem_class = "config.bad_value"
    if "divisible by" in message or "num_generations" in message:
        problem_class = "config.grpo_batch"
    elif "save and eval strategy" in message:
        problem_class = "config.eval_save"
    return {"key": key, "rule": message[:400], "class": problem_class}


def main() -> int:
    """Print the verdicts as one JSON line; the exit code tells only whether the check itself ran."""
    methods, paths = sys.argv[1::2], sys.argv[2::2]
    if not methods or len(methods) != len(paths) or not set(methods) <= set(METHODS):
        sys.stderr.write(f"usage: trl_parse_job.py {{{','.join(METHODS)}}} CONFIG [METHOD CONFIG …]\n")
        return 2
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TRANSFORMERS_VERBOSITY="error")
    verdicts = [parse(method, path) for method, path in zip(methods, paths, strict=True)]
    import trl

    sys.stdout.write(json.dumps({"verdicts": verdicts, "trl": trl.__version__}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
