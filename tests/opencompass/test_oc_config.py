"""The OpenCompass config file: what it says, and that no value can become code or a replaced brace."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oc_fixtures import make_request, make_task, own_items
from pydantic import ValidationError

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.config import render_config
from rdagent_ft.evaluation.opencompass.place import Asked, Placed
from rdagent_ft.evaluation.opencompass.spec import Endpoint, OpenCompassRequest

ASKED = (Asked(item_id="a"),)
EXECUTE = """
import sys, types
from contextlib import contextmanager

class Name(str): pass
def module(name, **names):
    parts = name.split('.')
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault('.'.join(parts[:end]), types.ModuleType('.'.join(parts[:end])))
    for key, value in names.items():
        setattr(sys.modules[name], key, value)

@contextmanager
def read_base():
    yield

module('mmengine.config', read_base=read_base)
module('opencompass.datasets', CustomDataset='CustomDataset')
module('opencompass.models', OpenAISDK='OpenAISDK')
module('opencompass.openicl.icl_inferencer', GenInferencer='GenInferencer')
module('opencompass.openicl.icl_raw_prompt_template', RawPromptTemplate='RawPromptTemplate')
module('opencompass.openicl.icl_retriever', ZeroRetriever='ZeroRetriever')
module('opencompass.partitioners', NaivePartitioner='NaivePartitioner')
module('opencompass.runners', LocalRunner='LocalRunner')
module('opencompass.tasks', OpenICLInferTask='OpenICLInferTask')
hard_coded = lambda name: dict(abbr=name, name=name, infer_cfg=dict(inferencer=dict(max_out_len=512)))
module('opencompass.configs.datasets.gsm8k.gsm8k_gen_1d7fe4', gsm8k_datasets=[hard_coded('gsm8k')])
module('opencompass.configs.datasets.mmlu.mmlu_openai_simple_evals_gen_b618ea',
       mmlu_datasets=[hard_coded('anatomy'), hard_coded('virology')])
import json
space = {}
exec(compile(open(sys.argv[1]).read(), 'config.py', 'exec'), space)
print(json.dumps([space['datasets'], space['models'], space['infer']]))
"""


def run_config(text: str, folder: Path) -> Any:
    """Execute the config in a child, with stand-ins for OpenCompass's names, and return its values."""
    import json

    (folder / "config.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(folder / "config.py")], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_config_says_what_was_asked_for(tmp_path: Path) -> None:
    items = own_items(2)
    own = make_task(tmp_path, items, max_new_tokens=77, repeats=3, temperature=0.5)
    gsm8k = make_task(
        tmp_path, items, benchmark="gsm8k", documented="gsm8k", records=[{}], max_new_tokens=2048,
        temperature=0.5,
    )  # fmt: skip
    mmlu = make_task(tmp_path, items, benchmark="mmlu", documented="mmlu", records=[{}], temperature=0.5)
    request = make_request(tmp_path, own, gsm8k, mmlu, concurrency=3)
    placed = (
        Placed(task_name="heldout-val", abbr="heldout-val", path=Path("/d/it's.jsonl"), asked=ASKED),
        Placed(task_name="gsm8k-val", abbr="gsm8k-val", asked=ASKED),
        Placed(task_name="mmlu-val", abbr="mmlu-val-virology", subject="virology", asked=ASKED),
    )
    datasets, models, infer = run_config(render_config(request, placed, Path("/t")), tmp_path)
    assert [one["abbr"] for one in datasets] == ["heldout-val", "gsm8k-val", "mmlu-val-virology"]
    assert (datasets[0]["path"], datasets[0]["n"]) == ("/d/it's.jsonl", 3)
    limits = [one["infer_cfg"]["inferencer"]["max_out_len"] for one in datasets]
    assert limits == [77, 2048, 64], "the limit that a dataset config hard-codes is overridden"
    assert datasets[0]["infer_cfg"]["prompt_template"]["messages"] == [{"expand_column": "messages"}]
    (model,) = models
    assert (model["path"], model["temperature"], model["key"]) == ("cand", 0.5, "ENV")
    assert (model["max_workers"], model["batch_size"], model["max_seq_len"]) == (3, 12, 8192)
    assert infer["partitioner"]["type"] == "NaivePartitioner"


def test_documented_names_map_to_the_documented_configs() -> None:
    assert CATALOGUE["aime25"].full_name == "aime2025_llmjudge_gen_5e9f4f"
    assert CATALOGUE["gsm8k"].full_name == "gsm8k_gen_1d7fe4"
    assert set(CATALOGUE) == {
        "aime24", "aime25", "gpqa", "gsm8k", "humaneval", "ifeval", "math", "mbpp", "mmlu"
    }  # fmt: skip


HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "x', __import__('os').system('id'), '",
            "{{ fileDirname }}",
            "{{$HOME:x}}",
            "a\n import os",
            "{0.__class__}",
            "demo1",
        ]
    ),
    st.text(alphabet="abc'\"\\{}$\n();#,-./:_ 19", min_size=1),
)


@pytest.fixture(scope="module")
def plain_request(tmp_path_factory: pytest.TempPathFactory) -> OpenCompassRequest:
    folder = tmp_path_factory.mktemp("plain")
    return make_request(folder, make_task(folder, own_items(2)))


@settings(max_examples=300, deadline=None)
@given(name=HOSTILE, role=HOSTILE, url=HOSTILE, path=HOSTILE)
def test_no_value_becomes_code(
    plain_request: OpenCompassRequest, name: str, role: str, url: str, path: str
) -> None:
    """Each value is refused, or stands in the file as the same literal with the same code around it."""
    good = plain_request.endpoint.model_dump()
    for key, value in (("served_name", name), ("role", role), ("base_url", "http://h" + url)):
        try:
            endpoint = Endpoint(**{**good, key: value})
        except ValidationError:
            continue
        _same_code(plain_request, plain_request.model_copy(update={"endpoint": endpoint}), "/d/x", value)
    try:
        _same_code(plain_request, plain_request, "/d/" + path, "/d/" + path)
    except PreflightError:
        assert any(c in path for c in "{}") or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in path) or (
            len(path) > 2000
        )  # fmt: skip


def _same_code(plain: OpenCompassRequest, changed: OpenCompassRequest, path: str, value: str) -> None:
    placed = (Placed(task_name="heldout-val", abbr="heldout-val", path=Path(path), asked=ASKED),)
    reference = (placed[0].model_copy(update={"path": Path("/d/x")}),)
    text = render_config(changed, placed, Path("/t"))
    tree, expected = ast.parse(text), ast.parse(render_config(plain, reference, Path("/t")))
    assert not set(text) & {"{", "}"}
    assert _skeleton(tree) == _skeleton(expected)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert value in texts or str(Path(value)) in texts


def _skeleton(tree: ast.AST) -> list[str]:
    return [type(node).__name__ for node in ast.walk(tree)]


@pytest.mark.parametrize("name", ["demo1", "gpt-5-mine", "loop-o3", "foo4"])
def test_names_that_opencompass_takes_for_reasoning_models_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="no temperature"):
        make_request(tmp_path, make_task(tmp_path, own_items(2)), endpoint={"served_name": name})


def test_what_opencompass_would_lower_or_mix_is_refused(tmp_path: Path) -> None:
    items = own_items(2)
    with pytest.raises(ValidationError, match="no room"):
        make_request(tmp_path, make_task(tmp_path, items, max_new_tokens=8100))
    with pytest.raises(ValidationError, match="twice"):
        make_request(tmp_path, make_task(tmp_path, items), make_task(tmp_path, items))
    hot = make_task(tmp_path, items, benchmark="other", temperature=1.0)
    with pytest.raises(ValidationError, match="one temperature"):
        make_request(tmp_path, make_task(tmp_path, items), hot)
    with pytest.raises(ValidationError, match="above 0"):
        make_task(tmp_path, items, repeats=2)
    with pytest.raises(ValidationError, match="go together"):
        make_task(tmp_path, items, documented="gsm8k")
