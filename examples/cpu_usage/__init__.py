"""An alert type of one's own as a plug-in, and an alert of it."""
