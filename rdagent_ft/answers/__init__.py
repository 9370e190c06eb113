"""Reading what a model wrote: numbers, JSON, mathematics, code. Shared by scorers and rewards."""
