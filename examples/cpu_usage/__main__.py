"""Be told of servers whose CPU usage is high, by an alert type of one's own:
`python -m examples.cpu_usage --server HOST:PORT`.

The type is `tocsin_cpu_usage.py`, a plug-in: `pip install ./examples/cpu_usage` where the server is
installed, and start it anew.
"""

from __future__ import annotations

from queue import Queue

import tocsin
from tocsin.v1.alerting_pb2 import Alert

from examples import command
from examples.receivers import Post, WebhookReceiver

TIMEOUT_S = 30.0
USAGE = {"server_1": 0.92, "server_2": 0.2}


def run(address: str) -> str:
    """Measure two servers and answer what the alert says."""
    posts: Queue[Post] = Queue()
    secret = tocsin.new_webhook_secret()
    with WebhookReceiver(posts.put) as receiver, tocsin.connect(address) as client:
        hook = client.create_configuration(tocsin.webhook("pager", receiver.expect("/pager", secret), secret))
        for server, usage in USAGE.items():
            client.append("host.cpu", message="measured", source={"host": server}, details={"usage": usage})
        alert = client.create_alert(_alert(hook.id))
        try:
            text = str(posts.get(timeout=TIMEOUT_S).body["text"])
            print(f"the pager says: {text}")
            return text
        finally:
            client.delete_alert(alert.id)
            client.delete_configuration(hook.id)


def _alert(pager_id: str) -> Alert:
    text = "The server {{context.server}} has a CPU usage of {{state.cpuUsage}}."
    return tocsin.alert(
        "cpu alert",
        "example.cpu-usage",
        {"threshold": 0.8},
        interval="1s",
        notify_when="on_action_group_change",
        actions=[tocsin.action(pager_id, body={"text": text})],
    )


def main() -> None:
    command.start(run, __doc__)


if __name__ == "__main__":
    main()
