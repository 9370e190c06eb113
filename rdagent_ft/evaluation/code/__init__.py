"""Scoring of answers that are Python programs: building them, and running them in a container's job."""
