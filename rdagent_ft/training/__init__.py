"""What runs inside a training job, and what reads its health. Needs the `train` extra."""
