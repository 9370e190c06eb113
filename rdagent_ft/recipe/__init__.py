"""The recipe: the candidate that a planner proposes and a person may write. See `schema.py`."""
