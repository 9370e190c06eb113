"""The known public benchmarks: facts, and how their files are read."""
