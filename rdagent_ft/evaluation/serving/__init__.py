"""One OpenAI-compatible server per base model, its adapters loaded and unloaded while it runs."""
