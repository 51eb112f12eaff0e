"""The figures of the design, each as a command: `python -m bench`.

Absolute figures mean little on shared machines, so each is a ratio against something run side by side
in the same rounds. Client, server and receiver share the machine's cores.
"""
