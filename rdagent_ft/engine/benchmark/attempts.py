"""Jobs of earlier calls in the work folder: which of their finished tasks a resumed call takes over.

A task's answers count again when the same model was asked the same items in the same way and the task
was finished (`parse_finished`). The identity lies beside the job's folder, where the job cannot write.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.benchmark.asked import Answers, HarnessFiles
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.lm_eval_harness import adapters_without_effect, parse_finished
from rdagent_ft.evaluation.port import EvalModel, EvalRequest
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import content_hash, sha256_file, write_json

IDENTITY_NAME = "identity.json"
JOB_PREFIX = "job-"


class Earlier(NamedTuple):
    """What earlier jobs finished. `files`: role -> lm-eval's own files, oldest first."""

    answers: Answers
    files: dict[str, tuple[HarnessFiles, ...]]


def identities_of(
    request: EvalRequest, fingerprints: dict[str, str], versions: dict[str, str]
) -> dict[str, str]:
    """Return role -> hash of everything that decides its answers.

    `fingerprints` are the models'; `versions` those of what answers, where it is not the hf backend here.
    """
    tasks = [
        task.model_dump(mode="json", exclude={"items_file"}) | {"items": sha256_file(task.items_file)}
        for task in request.tasks
    ]
    common = [tasks, request.prompt_format, request.batch_size, request.device, version("lm_eval")]
    common += [versions] if versions else []
    return {
        model.role: content_hash([fingerprints[model.role], model.batch_size, common], n_chars=32)
        for model in request.models
    }


def new_attempt(work: Path, name: str, identities: dict[str, str]) -> Path:
    """Make the folder of a new job, note who is asked in it, and return where the job writes."""
    folder = work / f"{JOB_PREFIX}{name}"
    out_dir = folder / "out"
    out_dir.mkdir(parents=True)
    write_json(folder / IDENTITY_NAME, identities)
    return out_dir


def finished_before(work: Path, request: EvalRequest, identities: dict[str, str]) -> Earlier:
    """Return the tasks of this request that earlier jobs finished; what is damaged is not there."""
    answers: Answers = {}
    files: dict[str, tuple[HarnessFiles, ...]] = {}
    for folder in sorted(work.glob(f"{JOB_PREFIX}*")):
        out_dir = folder / "out"
        try:
            noted = read_json_file(folder, IDENTITY_NAME)
            inert = adapters_without_effect(out_dir)
        except JobError:
            continue
        same = [
            model
            for model in request.models
            if noted.get(model.role) == identities[model.role] and model.role not in inert
        ]
        found = parse_finished(request.model_copy(update={"models": tuple(same)}), out_dir)
        found = {key: value for key, value in found.items() if key not in answers}
        answers |= found
        for role in dict.fromkeys(role for role, _, _ in found):
            files[role] = (*files.get(role, ()), harness_files(out_dir, role, found))
    return Earlier(answers, files)


def without(request: EvalRequest, answers: Answers) -> EvalRequest:
    """Return the request for what is not answered yet; it may have no models left."""
    models: list[EvalModel] = []
    for model in request.models:
        missing = tuple(
            (task.benchmark, task.split)
            for asked, task in request.pairs()
            if asked.role == model.role and (model.role, task.benchmark, task.split) not in answers
        )
        if missing:
            models.append(model.model_copy(update={"only": missing}))
    return request.model_copy(update={"models": tuple(models)})


def lm_eval_folder(out_dir: Path, role: str) -> Path:
    """Return where a job or client leaves lm-eval's own files of a role."""
    return out_dir / "lm-eval" / role


def harness_files(out_dir: Path, role: str, answers: Answers) -> HarnessFiles:
    """Return lm-eval's own files of a role, with the tasks that these answers are of."""
    names = (f"rdft_{name}_{split}" for asked, name, split in answers if asked == role)
    return HarnessFiles(lm_eval_folder(out_dir, role), frozenset(names))
