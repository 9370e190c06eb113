"""Priors with sources, listed models and failure signatures, as YAML."""
