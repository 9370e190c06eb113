"""Who proposes. `port.py` is the contract; planners are stateless, the history is an argument."""
