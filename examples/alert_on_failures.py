"""Raise an alert when one thing fails again and again:
`python -m examples.alert_on_failures --server HOST:PORT`.

Single failures are nobody's business here; three of one resource within five seconds are. The alert
names the resource, tells once, and tells again when it is over.
"""

from __future__ import annotations

from queue import Queue

import tocsin
from tocsin.v1.alerting_pb2 import Alert

from examples import command
from examples.receivers import Post, WebhookReceiver

TIMEOUT_S = 30.0
RESOURCE = "docker.io/library/payments:2.4"


def run(address: str) -> list[str]:
    """Fail often enough and answer the texts of the alert: the one that warns, the one that ends it."""
    posts: Queue[Post] = Queue()
    secret = tocsin.new_webhook_secret()
    with WebhookReceiver(posts.put) as receiver, tocsin.connect(address) as client:
        hook = client.create_configuration(tocsin.webhook("pager", receiver.expect("/pager", secret), secret))
        alert = client.create_alert(_alert(hook.id))
        try:
            for number in range(3):
                client.append(
                    "image.analysis.failed",
                    level="error",
                    message=f"layer {number} cannot be read",
                    resource={"type": "image_tag", "id": RESOURCE},
                )
            texts = []
            for _ in ("active", "recovered"):
                texts.append(posts.get(timeout=TIMEOUT_S).body["text"])
                print(f"the pager says: {texts[-1]}")
            return texts
        finally:
            client.delete_alert(alert.id)
            client.delete_configuration(hook.id)


def _alert(pager_id: str) -> Alert:
    warn = {"text": "{{context.group.resource_id}} failed {{context.count}} times"}
    relax = {"text": "{{context.group.resource_id}} is well again"}
    return tocsin.alert(
        "an image cannot be analysed",
        ".event-threshold",
        {
            "source": {"event_types": ["image.analysis.failed"], "levels": ["error"]},
            "window": "5s",
            "threshold": 3,
            "comparator": ">=",
            "group_by": ["resource_id"],
        },
        interval="1s",
        notify_when="on_action_group_change",
        actions=[
            tocsin.action(pager_id, body=warn),
            tocsin.action(pager_id, tocsin.RECOVERED, body=relax),
        ],
    )


def main() -> None:
    command.start(run, __doc__)


if __name__ == "__main__":
    main()
