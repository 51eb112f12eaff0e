"""Tell a webhook about failures: `python -m examples.notify_on_failure --server HOST:PORT`.

The receiver runs here, on 127.0.0.1, and checks each signature with the public `standardwebhooks`
library. The server has to be allowed to post to 127.0.0.1, as `serve --dev` is.
"""

from __future__ import annotations

from queue import Queue

import tocsin

from examples import command
from examples.receivers import Post, WebhookReceiver

TIMEOUT_S = 30.0


def run(address: str) -> Post:
    """Append a success and a failure, and answer what the receiver was told."""
    posts: Queue[Post] = Queue()
    secret = tocsin.new_webhook_secret()
    with WebhookReceiver(posts.put) as receiver, tocsin.connect(address) as client:
        hook = client.create_configuration(
            tocsin.webhook(
                "failures of tags",
                receiver.expect("/failures", secret),
                secret,
                [tocsin.selector("tag.check.*", level="error")],
            )
        )
        try:
            client.append("tag.check.completed", message="latest is what it was")
            failed = client.append(
                "tag.check.failed",
                level="error",
                message="the registry does not answer",
                resource={"type": "image_tag", "id": "docker.io/library/nginx:latest"},
            )
            post = posts.get(timeout=TIMEOUT_S)
            print(f"the receiver was told: {post.body['type']}, {post.body['data']['message']}")
            delivery = client.wait_for_delivery(event_id=failed.id, timeout_s=TIMEOUT_S)
            print(f"delivery {delivery.id} needed {delivery.attempt_count} attempt(s)")
            assert post.id == delivery.id
            assert posts.empty(), "the success was told as well"
            return post
        finally:
            client.delete_configuration(hook.id)


def main() -> None:
    command.start(run, __doc__)


if __name__ == "__main__":
    main()
