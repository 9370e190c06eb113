"""LLaMA-Factory as the second trainer: what it can say of a recipe, its configs, its data files, its keys.

The job that runs it is `training/llamafactory_job.py`. Nothing here imports the trainer.
"""
