"""Autonomous fine-tuning of open language models, with claims that can be trusted."""

__version__ = "0.1.0"
