"""Measurements of the library against its own promises; each module has a `run(...)` that returns a dictionary."""
