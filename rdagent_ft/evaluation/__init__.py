"""How a number comes to be: harness port, scorers, sample rows, statistics."""
