"""The embedded demo: a router task and a tiny base model, both generated."""
