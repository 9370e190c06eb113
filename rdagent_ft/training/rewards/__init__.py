"""The verifiable rewards of a `grpo` stage: what scores a completion inside the training job."""
