"""Keys that belong to the program: what a recipe or a person's trainer config may not set.

A recipe may not name paths, models, data files or the Hub at all: two candidates must differ in
nothing else than the recipe. A trainer config that a person wrote has to name its model, data and
output to be complete, so those are allowed there; sending anything away from the machine is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding

RECIPE_PROTECTED = frozenset(
    {
        "model", "base_model", "model_name", "model_name_or_path", "model_revision", "model_id",
        "tokenizer", "trust_remote_code", "chat_template", "chat_template_path", "prompt_format",
        "dataset", "datasets", "dataset_name", "dataset_config", "data_files", "data_path", "train_file",
        "output", "output_dir", "logging_dir", "resume_from_checkpoint", "run_name", "report_to",
        "push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo", "hub_revision",
        "temperature", "max_new_tokens", "benchmark", "benchmarks", "deepspeed", "env",
    }
)  # fmt: skip
"""Names that a recipe may not carry, but where a stage has a field of that name (`temperature` of `grpo`)."""

TRAINER_OWNED = frozenset({"model_name_or_path", "datasets", "output_dir", "report_to", "push_to_hub"})
"""Keys that rendering always writes itself."""

_HUB_KEYS = (
    "hub_model_id",
    "hub_token",
    "hub_strategy",
    "hub_private_repo",
    "hub_always_push",
    "hub_revision",
)
_SERVICE_KEYS = (
    "trackio_space_id",
    "trackio_bucket_id",
    "trackio_static_space_id",
    "log_completions_hub_repo",
)
_SYSTEM_FOLDERS = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/dev", "/proc", "/sys", "/var/lib")


def check_protected(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding (`config.protected_key`) for each program-owned thing a trainer config sets."""
    if values.get("push_to_hub") not in (None, False, "false", "False", "no"):
        yield _owned(
            "push_to_hub", values, "would publish the model during training", "publish by hand afterwards",
            Edit(action="set", key="push_to_hub", value=False),
        )  # fmt: skip
    for key in _HUB_KEYS + _SERVICE_KEYS:
        if values.get(key) not in (None, False):
            value = "(not shown)" if key == "hub_token" else shown(values[key])
            rule = "sends things to the Hub, which belongs to the program"
            edit = Edit(action="drop", key=key)
            yield finding(key, value, rule, "config.protected_key", "drop it", edit)
    if values.get("report_to") not in (None, "none", [], ["none"]):
        yield _owned(
            "report_to", values, "sends metrics to a service; the program reads them from files",
            "write `report_to: none`", Edit(action="set", key="report_to", value="none"),
        )  # fmt: skip
    if values.get("trust_remote_code") in (True, "true", "True"):
        yield _owned(
            "trust_remote_code",
            values,
            "runs code of the model's repository",
            "drop it and use a built-in architecture",
        )
    if values.get("resume_from_checkpoint") not in (None, False, ""):
        yield _owned(
            "resume_from_checkpoint",
            values,
            "names a path that the program chooses when it resumes",
            "drop it",
        )
    if values.get("env") not in (None, {}):
        yield _owned(
            "env", values, "sets the environment of the job, which belongs to the program", "drop it"
        )
    yield from _output(values)


def _output(values: Mapping[str, Any]) -> Iterator[Finding]:
    folder = values.get("output_dir")
    if not isinstance(folder, str):
        return
    path = PurePosixPath(folder)
    system = path == PurePosixPath("/") or any(path.is_relative_to(top) for top in _SYSTEM_FOLDERS)
    if system or ".." in path.parts or folder.startswith("~"):
        yield _owned(
            "output_dir", values, "leaves the job's own folder", "name a folder below the working directory"
        )


def _owned(key: str, values: Mapping[str, Any], rule: str, fix: str, *edits: Edit) -> Finding:
    value: Any = "(not shown)" if key == "env" else shown(values[key])
    return finding(key, value, rule, "config.protected_key", fix, *edits)
