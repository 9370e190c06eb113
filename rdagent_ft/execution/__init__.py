"""Where jobs run. `port.py` is the contract, `local.py` the subprocess executor."""
