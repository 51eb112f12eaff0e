"""The clock's way in: routing, delivering and executing on a thread of its own, with its own event loop.

Loops are in `loop.py`; each step is a method that a test can call.
"""
