"""What makes a flat trainer config right or wrong before anything runs. Entry: `check.py`."""
