"""A server that kills itself at a named moment: a process that is forked for each life, so that a start is cheap.

`python -m tests.support.crashing DATA` reads lines `COUNT KEEP MOMENT` from standard input. For each it forks, and
the child serves until the moment has come for the COUNT-th time, or (COUNT 0) until SIGTERM, keeping so many
events. It prints `serving PORT PROCESS` and, when the child is gone, `ended STATUS`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import uvloop
from tocsin_server.app import App
from tocsin_server.config import load
from tocsin_server.logs import configure_logs
from tocsin_server.runtime import system_runtime

# Every moment at which the server says that a crash must lose nothing.
MOMENTS = (
    "group taken",
    "transaction begun",
    "rows written",
    "committed",
    "published",
    "answered",
    "routed",
    "sending",
    "sent",
    "horizon raised",
)
# Those that a deletion passes in each of its steps.
DELETION_MOMENTS = ("transaction begun", "rows hidden", "rows written", "committed", "published", "answered")


def crash_at(moment: str, count: int) -> Callable[[str], None]:
    """Make the function that kills the process when a moment has come so many times."""
    left = [count]

    def passed(name: str) -> None:
        if name == moment:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed


async def serve(data: str, moment: str, count: int, keep: int) -> None:
    """Serve on a free port until killed, or until SIGTERM."""
    runtime = replace(system_runtime(), moment=crash_at(moment, count))
    flags = {"server.port": 0, "store.data": data, "egress.allow": ["127.0.0.0/8"]}
    app = App(load(environment={}, flags={**flags, "event_log.retention.max_events": keep}), runtime)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await app.start()
    sys.stdout.write(f"serving {app.port} {os.getpid()}\n")  # in one piece: it may be killed at any moment
    sys.stdout.flush()
    await stopping.wait()
    await app.stop()


def main() -> None:
    """Fork a server for each line."""
    configure_logs("error", "json")
    data = sys.argv[1]
    for line in sys.stdin:
        count, keep, moment = line.rstrip("\n").split(" ", 2)
        child = os.fork()
        if child == 0:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(data, moment, int(count), int(keep)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
