"""The main job of tocsin, end to end and visibly: `python -m examples.demo`."""
