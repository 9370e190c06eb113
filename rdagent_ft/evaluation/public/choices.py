"""Multiple choice: the answer is an option's letter."""

from __future__ import annotations

from rdagent_ft.evaluation.public.benchmark import Benchmark

LETTER_LAST = "End with the letter of the right option, in the form `Answer: X`."

MATHQA = Benchmark(
    name="mathqa",
    title="MathQA, multiple-choice maths word problems (a test sample)",
    source="math-qa.github.io; 1,000 of 2,985 test items as collected by math-evaluation-harness",
    licence="Apache-2.0",
    scorer="choice_match",
    reader="options",
    split="test",
    files=("test.jsonl", "mathqa.jsonl"),
    question=("problem", "Problem", "question"),
    answer=("correct", "answer"),
    instruction=LETTER_LAST,
    max_new_tokens=1024,
    noise="1,000 items: a paired change of about 4 pp can be shown; a share of the references is known "
    "to be wrong, so no model reaches 100 %",
    n_items=1000,
)

AQUA = Benchmark(
    name="aqua",
    title="AQuA-RAT, multiple-choice algebra word problems",
    source="google-deepmind/AQuA",
    licence="Apache-2.0",
    scorer="choice_match",
    reader="options",
    split="test",
    files=("test.jsonl", "test.json", "aqua.jsonl"),
    question=("question",),
    answer=("correct", "answer"),
    instruction=LETTER_LAST,
    max_new_tokens=1024,
    noise="254 items: a paired change below about 8 pp cannot be shown",
    n_items=254,
)

COMMONSENSEQA = Benchmark(
    name="commonsenseqa",
    title="CommonsenseQA, everyday knowledge (dev split)",
    source="tau-nlp/commonsenseqa",
    licence="MIT",
    scorer="choice_match",
    reader="options",
    split="dev: the test split has no public answers",
    files=("dev.jsonl", "dev_rand_split.jsonl", "commonsenseqa.jsonl"),
    folders=("csqa", "commonsense_qa"),
    question=("question",),
    answer=("answerKey",),
    instruction=LETTER_LAST,
    max_new_tokens=512,
    guide_names=("commonsenseqa_gen_c946f2", "commonsenseqa_7shot_cot_gen_734a22"),
    noise="1,221 items: a paired change of about 3.6 pp can be shown",
    n_items=1221,
)

MMLU = Benchmark(
    name="mmlu",
    title="MMLU, 57 subjects, zero-shot, the letter is generated",
    source="hendrycks/test",
    licence="MIT",
    scorer="choice_match",
    reader="mmlu",
    split="test, all 57 subjects",
    files=("mmlu.zip", "data/test", "test"),
    instruction=LETTER_LAST,
    max_new_tokens=1024,
    guide_names=("mmlu_openai_simple_evals_gen_b618ea", "mmlu_gen_4d595a"),
    noise="14,042 items, 13,937 distinct (equal ones count once): a paired change of about 1.1 pp can be "
    "shown; zero-shot with reasoning allowed, so 5-shot scores by option likelihood do not compare",
    n_items=14_042,
)

MMLU_LL = Benchmark(
    name="mmlu_ll",
    title="MMLU, 57 subjects, zero-shot, by the likelihood of the letters",
    source="hendrycks/test",
    licence="MIT",
    scorer="choice_match",
    method="choose",
    reader="mmlu_ll",
    split="test, all 57 subjects",
    files=("mmlu.zip", "data/test", "test"),
    folders=("mmlu",),
    max_new_tokens=8,
    guide_names=("mmlu_ppl_ac766d",),
    noise="14,042 items, 14,015 distinct (equal ones count once): a paired change of about 1.1 pp can be "
    "shown; zero-shot, published scores are mostly 5-shot",
    n_items=14_042,
)

GPQA = Benchmark(
    name="gpqa",
    title="GPQA diamond, graduate-level science",
    source="idavidrein/gpqa (gated: ask its authors)",
    licence="CC BY 4.0; the authors ask that items are not published in plain text",
    scorer="choice_match",
    reader="gpqa",
    split="diamond",
    files=("gpqa_diamond.csv", "gpqa.csv"),
    folders=("gpqa_diamond",),
    question=("Question",),
    answer=("Correct Answer",),
    instruction=LETTER_LAST,
    max_new_tokens=8192,
    guide_names=(
        "gpqa_openai_simple_evals_gen_5aeece",
        "gpqa_0shot_nocot_genericllmeval_gen_772ea0",
        "gpqa_cascade_eval_gen_772ea0",
    ),
    noise="198 items: a paired change below about 9 pp cannot be shown",
    n_items=198,
)

CHOICES = (MATHQA, AQUA, COMMONSENSEQA, MMLU, MMLU_LL, GPQA)
