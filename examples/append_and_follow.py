"""Append events and follow them: `python -m examples.append_and_follow --server HOST:PORT`."""

from __future__ import annotations

import tocsin

from examples import command

FEEDS = ("vulnerabilities", "packages", "malware")


def run(address: str) -> list[int]:
    """Append a few events and answer the positions at which they come back."""
    with tocsin.connect(address) as client:
        drafts = [
            tocsin.draft(
                "feed.sync.completed",
                message=f"{feed} are up to date",
                details={"records": 100 * number},
                resource={"type": "feed", "id": feed},
                source="feeds",
            )
            for number, feed in enumerate(FEEDS, start=1)
        ]
        stored = client.append_many(drafts)
        print(f"stored {len(stored)} events, the newest at position {stored[-1].position}")
        # Just before our first event; what another producer appends meanwhile comes too, so we filter.
        start = tocsin.After(stored[0].position - 1, stored[0].log_id)
        waiting, positions = {found.id for found in stored}, []
        with client.subscribe(start=start, types=["feed.sync.*"]) as subscription:
            for event in subscription:
                print(f"{event.position:6} {event.type} {event.resource.id} {tocsin.to_python(event.details)}")
                if event.id in waiting:
                    waiting.remove(event.id)
                    positions.append(event.position)
                if not waiting:
                    break
        return positions


def main() -> None:
    command.start(run, __doc__)


if __name__ == "__main__":
    main()
