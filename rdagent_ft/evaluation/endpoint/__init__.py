"""Models behind an OpenAI-compatible endpoint, asked through lm-eval's own API model classes."""
