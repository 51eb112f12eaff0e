"""Runnable examples of the Python client, each `python -m examples.NAME --server HOST:PORT`."""
