"""The LLM judge: equivalence after a rule miss, rubric scores, pairs; and whether it may be believed."""
