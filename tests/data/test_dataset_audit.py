"""The audit of a dataset: planted facts are counted, values of personal data never shown."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.data.audit_language import guess_language
from rdagent_ft.data.audit_near import NearCounter
from rdagent_ft.data.audit_personal import personal_counts
from rdagent_ft.data.audit_report import DataAudit, audit_lines
from rdagent_ft.data.audit_stream import audit_dataset
from rdagent_ft.data.near_duplicates import near_duplicate_clusters, normalised_text
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import Row
from rdagent_ft.data.stream import row_mapping, scan, stream_rows
from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.errors import DataError

RowMaker = Callable[..., Row]


def audited(folder: Path, rows: list[dict[str, Any]], **options: Any) -> DataAudit:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return audit_dataset(resolve_dataset(str(path), folder), **options)


def words(rng: random.Random, n: int) -> str:
    return " ".join(f"w{rng.randrange(5_000)}" for _ in range(n))


def test_planted_facts_are_found(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [{"prompt": words(rng, 20), "completion": words(rng, 30)} for _ in range(100)]
    rows += [rows[0], rows[1], rows[1]]
    rows += [{"prompt": rows[5]["prompt"].upper(), "completion": rows[5]["completion"]}]
    rows += [{"prompt": rows[7]["prompt"], "completion": rows[7]["completion"] + " more"}]
    rows += [{"prompt": rows[9]["prompt"], "completion": words(rng, 30)}]
    rows += [{"prompt": "say it", "completion": "say it"}, {"prompt": "p", "completion": " "}]
    rows += [{"prompt": words(rng, 60), "completion": "x y"}]
    found = audited(tmp_path, rows, max_length=50)
    assert (found.n_read, found.n_rows, found.unit) == (109, 108, "words")
    assert found.dropped == {"empty completion": 1}
    assert found.dropped_places == {"empty completion": ("rows.jsonl:108",)}
    assert (found.n_exact_duplicates, found.n_near_duplicates) == (3, 2)
    assert ("rows.jsonl:8", "rows.jsonl:105") in found.near_examples
    # Upper case, one word more, and another answer: three further answers to known prompts.
    assert found.n_repeated_prompts == 3
    assert (found.n_echoed_answers, found.labels) == (1, None)
    assert (found.lengths.p50, found.lengths.max) == (50, 62)
    assert (found.n_truncated, found.n_prompt_fills_max_length) == (2, 1)
    assert any("rows.jsonl:105 is nearly rows.jsonl:8" in line for line in audit_lines(found))


def test_labels_are_balanced_or_not(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "mail" if n % 4 else "bill"} for n in range(40)]
    found = audited(tmp_path, rows).labels
    assert found is not None
    assert (found.n_labels, found.top, found.fewest) == (2, {"mail": 30, "bill": 10}, 10)
    assert found.share_of_most_common == 0.75


def test_tokens_are_those_of_the_model(
    tmp_path: Path, row: RowMaker, tokenizer_folder: Callable[..., Path]
) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row(f"send report {n}", "mail " * (n + 1)) for n in range(20)]
    records = [{"prompt": each.prompt_text, "completion": each.completion} for each in rows]
    found = audited(tmp_path, records, encoder=encoder, prompt_format="chat", max_length=40)
    counts = [encoder.row_tokens(each, "chat") for each in rows]
    totals = sorted(map(sum, counts))
    assert (found.unit, found.prompt_format, found.lengths.max) == ("tokens", "chat", totals[-1])
    assert found.n_truncated == sum(total > 40 for total in totals)
    trained = sum(max(0, min(a + b, 40) - a) for a, b in counts)
    kept = sum(min(total, 40) for total in totals)
    assert found.share_trained == pytest.approx(trained / kept, abs=1e-4)


def test_a_template_that_refuses_rows_is_said_and_words_are_counted(
    tmp_path: Path, tokenizer_folder: Callable[..., Path]
) -> None:
    encoder = load_encoder(tokenizer_folder(template="{{ raise_exception('no chat here') }}"))
    found = audited(tmp_path, [{"prompt": "a", "completion": "b"}], encoder=encoder)
    assert (found.unit, found.lengths.max) == ("words", 2)
    assert "no chat here" in (found.template_error or "")


def test_preferences_are_audited_as_such(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(3)]
    found = audited(tmp_path, [*rows, {**rows[0], "rejected": "yes"}])
    assert found.preferences is not None
    assert (found.format, found.n_rows, found.preferences.n_pairs) == ("pairs", 3, 3)
    assert found.dropped == {"chosen and rejected are equal": 1}


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 records"):
        audited(tmp_path, [{"prompt": "a", "completion": ""}] * 2)


@pytest.mark.parametrize("label", [True, "mail"])
def test_streamed_rows_are_those_of_the_reader(tmp_path: Path, label: object) -> None:
    """Columns that first appear late, labels of both kinds, and broken rows are judged alike."""
    records: list[dict[str, Any]] = [
        {"prompt": f"p{n}", "completion": "c", "label": label} for n in range(1_500)
    ]
    records[1_200]["extra"] = 1
    records[1_300]["label"] = False
    records[1_400]["completion"] = None
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    source = resolve_dataset(str(tmp_path / "rows.jsonl"), tmp_path)
    rows, report = read_rows(source)
    found = scan(source)
    mapping = row_mapping(found)
    judged = list(stream_rows(source, found, mapping))
    assert [each.row for each in judged if each.row is not None] == rows
    assert Counter(each.reason for each in judged if each.reason is not None) == report.dropped
    assert (mapping.fields, mapping.notes, found.n_records) == (report.mapping, report.notes, report.n_read)
    assert found.preferences == ("kto" if label is True else None)


# Put together here, so that no scanner takes a test for a secret.
SECRET = "sk-" + "a1B2c3D4" * 4
HITS: dict[str, tuple[str, ...]] = {
    "email": ("write to ann.lee+x@mail.example.org today",),
    "phone": ("call +49 30 1234 5678 now", "(415) 555-2671", "415-555-2671"),
    "ipv4": ("from 203.0.113.77, twice",),
    "card": ("card 4111 1111 1111 1111", "5500-0055-5555-5559"),
    "iban": ("to GB29 NWBK 6016 1331 9268 19 please", "DE89370400440532013000"),
    "ssn": ("his number is 219-09-9999",),
    "api_key": (f"key={SECRET}", "-----BEGIN RSA " + "PRIVATE KEY-----", "AKIA" + "ABCDEFGHIJKLMNOP"),
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in HITS.items() for text in texts])
def test_forms_of_personal_data_are_found(kind: str, text: str) -> None:
    assert personal_counts(text) == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 fails its sum", "0000 0000 0000 0000", "GB29 NWBK 6016 1331 9268 18",
        "version 1.2.3.400 and 127.0.0.1", "pi is 3.14159265358979323846", "add 1000 - 200 - 300 = 500",
        "000-12-3456", "user@localhost", "task-sk-learn and hf_hub", "in 1990-2000 and 2001-12-24",
        "<<48/2=24>>24 clips, 48+24 = <<48+24=72>>72",
    ],
)  # fmt: skip
def test_what_only_looks_similar_is_not_counted(text: str) -> None:
    assert personal_counts(text) == {}


def test_values_of_personal_data_are_never_shown(tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": f"answer {at}"} for at, text in enumerate(sum(HITS.values(), ()))]
    found = audited(tmp_path, rows)
    assert {kind: hits.n_rows for kind, hits in found.personal.items()} == {
        kind: len(texts) for kind, texts in HITS.items()
    }
    assert found.personal["email"].places == ("rows.jsonl:1",)
    shown = "\n".join(audit_lines(found)) + found.model_dump_json()
    for secret in ("ann.lee", "5678", "4111", "NWBK", "9999", SECRET[3:], "203.0.113"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "How can I improve the results of this model?"),
        ("de", "Wie kann ich die Ergebnisse mit dem Modell verbessern?"),
        ("fr", "Quelle est la capitale de la France et pour qui ?"),
        ("es", "¿Cuál es la capital de España y por qué?"),
        ("zh", "法国的首都是什么?"),
        ("ja", "フランスの首都はどこですか。"),
        ("ko", "프랑스의 수도는 어디입니까?"),
        ("ru", "Какая столица Франции?"),
        ("unknown", "x = f(y) + 3"),
        ("unknown", ""),
    ],
)
def test_languages(language: str, text: str) -> None:
    assert guess_language(text) == language


def test_near_duplicates_agree_with_the_exact_grouping(row: RowMaker) -> None:
    rng = random.Random(3)
    rows: list[Row] = []
    for number in range(300):
        text = words(rng, rng.randrange(10, 400)).split()
        rows.append(row(f"question {number} " + " ".join(text[:5]), " ".join(text[5:])))
        if number % 5 == 0:
            text[rng.randrange(len(text))] = "changed"
            rows.append(row(f"question {number} " + " ".join(text[:5]), " ".join(text[5:])))
    clusters = near_duplicate_clusters(rows)
    counter = NearCounter()
    for number, each in enumerate(rows):
        counter.add(normalised_text(each), str(number))
    n_near, examples = counter.finish()
    exact = len(rows) - len(set(clusters.values()))
    assert exact > 30
    assert abs(n_near - exact) <= 2
    assert all(clusters[rows[int(a)].item_id] == clusters[rows[int(b)].item_id] for a, b in examples)


@pytest.mark.real_data
def test_real_data(shared_data: Path) -> None:
    path = shared_data / "banking77" / "train.csv"
    found = audit_dataset(
        resolve_dataset(str(path), shared_data), {"prompt": "text", "completion": "category"}
    )
    assert (found.n_rows, found.n_exact_duplicates) == (10_003, 0)
    assert found.labels is not None
    assert (found.labels.n_labels, found.labels.fewest) == (77, 35)
    assert found.languages["en"] > 0.9 * found.n_rows
    assert found.personal == {}
