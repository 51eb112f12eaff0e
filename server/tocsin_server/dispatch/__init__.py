"""The clock's way in: loops that route, deliver and execute. They decide when, the domain decides what."""
