"""The metered LLM port and its adapters. `port.py` is the contract."""
