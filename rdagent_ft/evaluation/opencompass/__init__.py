"""OpenCompass 0.5.4 as a client of a served model: it asks, we score.

It lives in an environment of its own (its pins fit nothing of ours) and is started as a process:
`spec` (what to ask), `catalogue` (its dataset configs), `records` (the benchmarks' own records behind our
items), `place` (its data folder), `config` (its config file), `prepare` (the run's folder), `process` (its
processes), `predictions` and `logs` (what it left), `harness` (one run from end to end).
Its evaluators and summaries are never used: `evaluation.score` scores the answers.
"""
