"""The tocsin server: one durable log, and three services over it."""

import os

__version__ = "0.1.0"

# Previews start a process. Nothing is forked to run on, so that gRPC need not prepare for it and warn on stderr;
# it reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
