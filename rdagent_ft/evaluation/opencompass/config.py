"""The OpenCompass config file of an infer-only run, rendered from checked values.

The file is Python that OpenCompass executes and mmengine rewrites first (`{{ ... }}` is replaced, also
inside strings), so: names come from the catalogue, every value is a `repr` of a string, int, float,
list or dict of checked primitives, and no value may hold a brace.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.place import Placed
from rdagent_ft.evaluation.opencompass.spec import PATH_IN_CONFIG, OpenCompassRequest, OpenCompassTask
from rdagent_ft.values import sha256_text

BATCHES_OF_CONCURRENCY = 4
"""Questions a batch, per request in flight: a batch ends with its slowest answer, and answers are
saved by whole batches only."""

_HEAD = """\
from mmengine.config import read_base
{bases}
from opencompass.datasets import CustomDataset
from opencompass.models import OpenAISDK
from opencompass.openicl.icl_inferencer import GenInferencer
from opencompass.openicl.icl_raw_prompt_template import RawPromptTemplate
from opencompass.openicl.icl_retriever import ZeroRetriever
from opencompass.partitioners import NaivePartitioner
from opencompass.runners import LocalRunner
from opencompass.tasks import OpenICLInferTask

datasets = []
"""

_OWN = """
datasets.append(
    dict(
        type=CustomDataset,
        abbr={abbr},
        path={path},
        n={n},
        reader_cfg=dict(input_columns=['messages'], output_column='item_id'),
        infer_cfg=dict(
            prompt_template=dict(type=RawPromptTemplate, messages=[dict(expand_column='messages')]),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer, max_out_len={max_out_len}),
        ),
        eval_cfg=dict(),
    )
)
"""

_DOCUMENTED = """
for dataset in {variable}:
    if {subject} in (None, dataset.get('name')):
        dataset['abbr'] = {abbr}
        dataset['n'] = {n}
        dataset['infer_cfg']['inferencer']['max_out_len'] = {max_out_len}
        datasets.append(dataset)
"""

_TAIL = """
models = [
    dict(
        type=OpenAISDK,
        abbr={abbr},
        path={path},
        key='ENV',
        openai_api_base={base_url},
        tokenizer_path={tokenizer},
        meta_template=dict(
            round=[
                dict(role='HUMAN', api_role='HUMAN'),
                dict(role='BOT', api_role='BOT', generate=True),
            ],
            reserved_roles=[dict(role='SYSTEM', api_role='SYSTEM')],
        ),
        mode='none',
        temperature={temperature},
        query_per_second={queries_per_second},
        max_workers={concurrency},
        batch_size={batch_size},
        max_seq_len={context_tokens},
        max_out_len={max_out_len},
        retry={retries},
        timeout={timeout_s},
        run_cfg=dict(num_gpus=0),
    )
]
infer = dict(
    partitioner=dict(type=NaivePartitioner, n={n_datasets}),
    runner=dict(type=LocalRunner, max_num_workers=1, task=dict(type=OpenICLInferTask)),
)
"""


def render_config(request: OpenCompassRequest, placed: Sequence[Placed], tokenizer_dir: Path) -> str:
    """Return the config file's text.

    `NaivePartitioner` with one task for all datasets: the default partitioner splits a dataset by a size
    that it caches by name, and each task imports torch anew (10 s, 57 times for MMLU). Raises
    `PreflightError` for a path that cannot stand in the file.
    """
    tasks = {task.name: task for task in request.tasks}
    bases = [CATALOGUE[task.documented] for task in request.tasks if task.documented]
    imports = "".join(
        f"    from opencompass.configs.datasets.{base.module} import {base.variable}\n" for base in bases
    )
    head = _HEAD.format(bases=f"\nwith read_base():\n{imports}" if imports else "")
    return (
        head
        + "".join(_dataset(tasks[one.task_name], one) for one in placed)
        + _model(request, tokenizer_dir, len(placed))
    )


def config_hash(text: str) -> str:
    """Return 16 hex digits of the config's text."""
    return sha256_text(text)[:16]


def _dataset(task: OpenCompassTask, placed: Placed) -> str:
    limit, n = repr(task.task.max_new_tokens), repr(task.task.repeats)
    abbr = repr(placed.abbr)
    if task.documented is None:
        assert placed.path is not None
        return _OWN.format(abbr=abbr, path=_path(placed.path), n=n, max_out_len=limit)
    variable = CATALOGUE[task.documented].variable
    return _DOCUMENTED.format(
        variable=variable, subject=repr(placed.subject), abbr=abbr, n=n, max_out_len=limit
    )


def _model(request: OpenCompassRequest, tokenizer_dir: Path, n_datasets: int) -> str:
    endpoint = request.endpoint
    return _TAIL.format(
        abbr=repr(endpoint.role),
        path=repr(endpoint.served_name),
        base_url=repr(endpoint.base_url),
        tokenizer=_path(tokenizer_dir),
        temperature=repr(float(request.tasks[0].task.temperature)),
        queries_per_second=repr(request.queries_per_second),
        concurrency=repr(request.concurrency),
        batch_size=repr(BATCHES_OF_CONCURRENCY * request.concurrency),
        context_tokens=repr(endpoint.context_tokens),
        max_out_len=repr(max(task.task.max_new_tokens for task in request.tasks)),
        retries=repr(request.retries),
        timeout_s=repr(request.request_timeout_s),
        n_datasets=repr(n_datasets),
    )


def _path(path: Path) -> str:
    if not re.fullmatch(PATH_IN_CONFIG, str(path)):
        raise PreflightError(
            f"the path {str(path)!r} cannot stand in an OpenCompass config",
            hint="use a folder without braces and control characters in its name",
        )
    return repr(str(path))
