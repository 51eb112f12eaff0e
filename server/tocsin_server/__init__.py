"""The tocsin server: one durable log, and three services over it."""

__version__ = "0.1.0"
