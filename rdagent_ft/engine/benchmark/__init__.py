"""Scoring a model on a suite outside of any run: what `rdagent-ft benchmark` does."""
