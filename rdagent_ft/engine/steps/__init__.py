"""The steps, plain functions, one a file."""
