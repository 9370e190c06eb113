"""A model card never shows what must stay on the machine, and says what was shown and what was not."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from make_run import make_run
from pydantic import BaseModel

from rdagent_ft.evaluation.guards import GuardResult
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.recipe.rewards import PythonReward, RegexReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DistillStage, DpoStage, GrpoStage, LoraAdapter, MergeStage, SftStage
from rdagent_ft.reporting.card import NO_GAIN, model_card
from rdagent_ft.reporting.card_forms import FORMS, MARKER, CardPlace
from rdagent_ft.reporting.public import private_of, public_leaves
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.records import ClaimOutput, JudgedBenchmark, ReportedBenchmark
from rdagent_ft.reporting.view import RunView

SECRET = "correct-horse-battery-42"
ROW = "Dear Ms Example, your policy 99-1234 lapses on Friday"
FOLDER = "/srv/clients/acme corp/secret project"
HUB_KEY = "hf_" + "q7" * 10
HOSTILE = {
    "secret": (SECRET, SECRET),
    "row": (ROW, "99-1234"),
    "folder": (f"{FOLDER}/data.jsonl", "secret project"),
    "key": (f"see {HUB_KEY} there", HUB_KEY),
    "plain folder": ("/home/someone/models/tiny", "/home/someone"),
}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    folder = tmp_path_factory.mktemp("card")
    return with_ifeval(open_run(make_run(folder, hub=True)), folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    """The same without the answers of IFEval, which take a while to resample."""
    folder = tmp_path_factory.mktemp("bare")
    found = with_ifeval(open_run(make_run(folder, hub=True)), folder)
    shutil.rmtree(found.run_dir / "baseline")
    return found


def with_ifeval(view: RunView, folder: Path) -> RunView:
    """Return the view with IFEval, a guard and a judge in its claim, and answers on disk."""
    claim = view.claim
    assert claim is not None
    score = claim.base.model_copy(update={"benchmark": "ifeval", "scorer": "ifeval", "n": 4, "n_expected": 4})
    paired = claim.comparison.model_copy(update={"benchmark": "ifeval"})
    for owner, good in (("baseline", 1), (f"loops/{claim.loop:03d}", 3)):
        place = view.run_dir / owner / "eval" / "ifeval-test"
        place.mkdir(parents=True)
        rows = [
            SampleRow(
                benchmark="ifeval", split="test", item_id=f"i{at}", prompt_hash="p", prediction=ROW, gold=ROW,
                score=float(at < good),
                parts={
                    "inst_strict": (float(at < good), 1.0), "prompt_loose": (1.0,), "inst_loose": (1.0, 1.0),
                },
            )
            for at in range(4)
        ]  # fmt: skip
        (place / "samples.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    judged = JudgedBenchmark(
        status="ok",
        decides=True,
        model="gpt-4",
        rule=paired,
        with_judge=paired,
        alert="odd",
        cautions=("few",),
    )
    guard = GuardResult(benchmark="ifeval", margin=0.03, outcome="safe", p_holm=0.5, holds_after_holm=False)
    changed = claim.model_copy(
        update={
            "reported": {
                **claim.reported,
                "ifeval": ReportedBenchmark(base=score, tuned=score, comparison=paired),
            },
            "guards": {"ifeval": guard},
            "judged": {"ifeval": judged},
        }
    )
    return with_output(view, changed)


def with_output(view: RunView, output: ClaimOutput) -> RunView:
    steps = tuple(
        record.model_copy(update={"output": output}) if isinstance(record.output, ClaimOutput) else record
        for record in view.steps
    )
    return view.model_copy(update={"steps": steps})


def poisoned(value: Any, text: str, spoil: set[str], path: str = "") -> Any:
    """Return a value with `text` in every free string whose place is in `spoil`; fixed words stay."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        changed = {
            name: poisoned(getattr(value, name), text, spoil, f"{path}.{name}")
            for name, field in fields.items()
            if "Literal" not in str(field.annotation).replace("Literal['all-linear']", "")
        }
        copy = value.model_copy(update=changed)
        copy.__dict__.pop("loops", None)  # computed from the steps, and copied with them
        return copy
    if isinstance(value, dict):
        keep_keys = path.endswith((".splits", ".decoding", ".guards", ".judged", ".reported"))
        return {
            key if keep_keys or path not in spoil else text: poisoned(item, text, spoil, path)
            for key, item in value.items()
        }
    if isinstance(value, tuple):
        return tuple(poisoned(item, text, spoil, path) for item in value)
    return text if isinstance(value, str) and path in spoil else value


def free_places(value: Any, path: str = "") -> set[str]:
    """Return the places of all strings of a view."""
    if isinstance(value, BaseModel):
        return set().union(
            *(free_places(getattr(value, name), f"{path}.{name}") for name in type(value).model_fields)
        )
    if isinstance(value, dict):
        return {path}.union(*(free_places(item, path) for item in value.values()))
    if isinstance(value, tuple):
        return set().union(*(free_places(item, path) for item in value))
    return {path} if isinstance(value, str) else set()


KEPT = re.compile(
    r"_utc$|^\.run_dir$|\.step$|\.steps\.output\.(?:base|tuned|comparison)\.(?:verdict|scorer)$"
)


@pytest.mark.parametrize("kind", HOSTILE)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_what_is_private_in_any_field_is_never_in_the_card(bare: RunView, kind: str, seed: int) -> None:
    """Places are spoilt in seven random groups, so that each is spoilt among others that are not."""
    places = sorted(place for place in free_places(bare) if not KEPT.search(place))
    assert len(places) > 60
    generator = random.Random(seed)
    generator.shuffle(places)
    group = places[generator.randrange(7) :: 7]
    form = generator.choice(("run", *FORMS))
    assert_nothing_private(bare, kind, set(group), form)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_private_in_every_field_is_never_in_the_card(bare: RunView, kind: str) -> None:
    places = sorted(place for place in free_places(bare) if not KEPT.search(place))
    for form in ("run", *FORMS):
        assert_nothing_private(bare, kind, set(places), form)
    for start in range(7):
        assert_nothing_private(bare, kind, set(places[start::7]), "run")


def assert_nothing_private(view: RunView, kind: str, places: set[str], form: Any) -> None:
    text, never = HOSTILE[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FT_LLM_API_KEY", SECRET)
        card = model_card(
            poisoned(view, text, places), CardPlace(form=form, weights="m.gguf" if form == "gguf" else None)
        )
    assert never not in card.replace("\\", "")
    assert "None" not in card
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-generation"


def test_recipe_values_that_somebody_wrote_are_not_shown() -> None:
    recipe = Recipe.model_validate(
        {
            "data": {"script": "print('hello')", "exclude_sources": ["customer-7"]},
            "stages": (
                SftStage(adapter=LoraAdapter(target_modules=("q_proj", "up_proj"))),
                MergeStage(),
                DpoStage(loss_type=("sigmoid", "sft")),
                DistillStage(teacher="/models/teacher"),
                GrpoStage(
                    rewards=(RegexReward(pattern="policy 99"), PythonReward(function="acme.rewards.f"))
                ),
            ),
        }
    )
    shown = public_leaves(recipe)
    assert shown["stages.0.adapter.target_modules"] == ("q_proj", "up_proj")
    assert shown["stages.2.loss_type"] == ("sigmoid", "sft")
    assert shown["stages.0.learning_rate"] == 2e-4
    assert shown["stages.4.rewards.0.kind"] == "regex"
    text = json.dumps(list(map(str, shown.values())))
    for private in ("hello", "customer-7", "teacher", "99", "acme"):
        assert private not in text
    assert shown["data.script"] == shown["stages.3.teacher"] == "set, not shown"
    assert shown["data.exclude_sources"] == "1 set, not shown"


@pytest.mark.parametrize("verdict", ["improved", "equivalent", "inconclusive", "regressed", None])
def test_only_a_demonstrated_improvement_is_a_headline(tmp_path: Path, verdict: Any) -> None:
    card = model_card(open_run(make_run(tmp_path, verdict=verdict, n_loops=3)))
    headline = next(line for line in card.splitlines() if line.startswith("**"))
    assert headline.startswith(f"**{NO_GAIN}") == (verdict != "improved")
    assert headline.startswith("**Improved by") == (verdict == "improved")


def test_a_broken_record_of_looks_is_no_improvement(view: RunView) -> None:
    seal = view.seal.model_copy(update={"problem": "row 3 was changed"})
    card = model_card(view.model_copy(update={"seal": seal}))
    assert f"**{NO_GAIN}: the record of looks at the test was changed." in card


def test_the_card_holds_the_evidence(view: RunView) -> None:
    card = model_card(view, CardPlace(form="adapter", reference="acme/tuned"))
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["base_model"], front["license"]) == ("Qwen/Qwen3-0.6B", "apache-2.0")
    assert (front["library_name"], front["datasets"]) == ("peft", ["acme/router"])
    assert MARKER in card
    detail = card.split("### IFEval in detail")[1].split("##")[0]
    rows = [line.split(" | ") for line in detail.splitlines() if line.startswith("| ")][1:]
    assert [(row[1].split(" ")[0], row[2].split(" ")[0]) for row in rows] == [
        ("25.0%", "75.0%"), ("62.5%", "87.5%"), ("100.0%", "100.0%"), ("100.0%", "100.0%"),
    ]  # fmt: skip
    guards = card.split("### Guards against forgetting")[1]
    assert "| ifeval | 3.0 | a larger loss is excluded | 0.5 |" in guards
    assert "vllm serve Qwen/Qwen3-0.6B" in card
    assert "--max-lora-rank 16 --lora-modules tuned=acme/tuned" in card
    assert "its licence, apache-2.0, applies to this model too" in card
    for heading in ("## Data", "## Training", "## Limitations", "## Record"):
        assert heading in card


def test_ifeval_without_its_answers_is_left_out() -> None:
    with tempfile.TemporaryDirectory() as folder:
        view = with_ifeval(open_run(make_run(Path(folder))), Path(folder))
        (view.run_dir / "baseline/eval/ifeval-test/samples.jsonl").unlink()
        assert "IFEval in detail" not in model_card(view)


def test_an_unknown_licence_is_said_to_be_unknown(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    card = model_card(view)
    assert "license" not in card.split("---\n")[1]
    assert "the program does not know it" in card


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: llama3.1\n---\n# x", "llama3.1"),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'see <b>my</b> site'\n---\n", None),
        ("---\n- [\n---\n", None),
        ("# no front matter", None),
    ],
)
def test_the_licence_of_a_local_base_is_read_from_its_card(
    tmp_path: Path, readme: str, licence: str | None
) -> None:
    view = open_run(make_run(tmp_path))
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text(readme)
    prepare = view.prepare
    assert prepare is not None
    changed = prepare.model_copy(update={"model": prepare.model.model_copy(update={"path": str(base)})})
    steps = tuple(
        record.model_copy(update={"output": changed}) if record.step == "prepare" else record
        for record in view.steps
    )
    front = yaml.safe_load(model_card(view.model_copy(update={"steps": steps})).split("---\n")[1])
    assert front.get("license") == licence


def test_rows_of_the_data_are_found_in_a_text(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    data = view.run_dir / "data"
    data.mkdir(exist_ok=True)
    row = {
        "messages": [{"role": "user", "content": f"{ROW}\nand more"}, {"role": "assistant", "content": "ok"}]
    }
    (data / "train.jsonl").write_text(json.dumps(row) + "\nnot json\n")
    private = private_of(view, {"HF_TOKEN": SECRET, "TOKENIZERS_PARALLELISM": "false"})
    assert private.secrets == (SECRET,)
    assert private.has_row(f"a card with {ROW}  and\nmore of it")
    assert not private.has_row("a card that says ok")
    assert private.found_in(f"x {SECRET}") == "a secret"
    assert private.found_in(f"x {HUB_KEY}") == "a secret"
    assert private.known_in(f"x {HUB_KEY}") is None
    assert private.found_in(f"in {view.run_dir}/x") == "a folder of this machine"
    assert private.found_in("nothing") is None
