"""Share work between two workers: `python -m examples.share_work --server HOST:PORT`."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import tocsin

from examples import command

IMAGES = tuple(f"image-{number}.png" for number in range(1, 9))
BROKEN = IMAGES[3]


def run(address: str) -> tuple[set[str], str]:
    """Have two workers handle images between them; answer what was handled and why one was laid aside."""
    name, handled = f"thumbnails-{uuid4().hex[:8]}", set[str]()
    with tocsin.connect(address) as client:
        client.create_consumer(name, types=["image.uploaded"], max_retries=1, retry_delay_s=0)
        try:
            client.append_many([tocsin.draft("image.uploaded", resource={"id": image}) for image in IMAGES])
            workers = [client.consume(name, max_in_flight=2) for _ in range(2)]
            threads = [threading.Thread(target=work, args=(n, w, handled)) for n, w in enumerate(workers, start=1)]
            for thread in threads:
                thread.start()
            while not (status := client.get_consumer(name).status).parked or len(handled) < len(IMAGES) - 1:
                time.sleep(0.05)
            for worker in workers:
                worker.close()
            (parked,) = client.list_parked(name)
            print(f"laid aside: {parked.event.resource.id} after {parked.attempts} tries, {parked.reason!r}")
            print(f"everything up to position {status.floor} is settled")
        finally:
            client.delete_consumer(name)
    return handled, parked.reason


def work(number: int, deliveries: tocsin.Consumption, handled: set[str]) -> None:
    """Handle what this worker is given, until it is closed."""
    for delivery in deliveries:
        image = delivery.event.resource.id
        if image == BROKEN:
            delivery.nack("retry", "not an image")
        else:
            print(f"worker {number} made the thumbnail of {image}")
            handled.add(image)
            delivery.ack()


def main() -> None:
    command.start(run, __doc__)


if __name__ == "__main__":
    main()
