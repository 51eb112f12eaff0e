"""A client of a durable consumer: prints what it has handled, leaves when its input ends.

    python python_client.py ADDRESS CONSUMER

An event whose position is a multiple of ten is refused at the first try.
"""

from __future__ import annotations

import sys
import threading

import tocsin


def main(address: str, consumer: str) -> None:
    with tocsin.connect(address) as client, client.consume(consumer, heartbeat_s=1) as deliveries:

        def leave_at_the_end_of_input() -> None:
            sys.stdin.read()
            deliveries.close()

        threading.Thread(target=leave_at_the_end_of_input, daemon=True).start()
        print("started", flush=True)
        for delivery in deliveries:
            position = delivery.event.position
            if position % 10 == 0 and delivery.attempt == 1:
                delivery.nack("retry", "not yet")
            else:
                print("handled", position, flush=True)
                delivery.ack()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
