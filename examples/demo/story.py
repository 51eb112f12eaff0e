"""The story of the demo from its first to its last scene; everything it starts ends with it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import tocsin
from tocsin import Client
from tocsin.v1.alerting_pb2 import Alert

from examples.demo.actors import Producer, Subscriber
from examples.demo.checks import TRANSITIONS, Facts
from examples.demo.ledger import Ledger, Received
from examples.demo.narrator import Narrator
from examples.demo.server import Server
from examples.demo.stream import KILL_AT
from examples.receivers import Mail, Mailbox, Post, WebhookReceiver

# What has not happened by then does not: the checks will say what is missing.
LONGEST_S = 50.0
WINDOW = "6s"
_OPEN = ("pending", "sending", "retrying", "paused")


class Story:
    """Sets the stage in `folder`, lets the actors act, kills the server, and waits for the end."""

    def __init__(self, folder: Path, narrator: Narrator) -> None:
        self.ledger = Ledger()
        self.server = Server(folder)
        self._narrator = narrator
        self._deadline = monotonic() + LONGEST_S
        self._hook = WebhookReceiver(self._post)
        self._mailbox = Mailbox(self._mail)

    def play(self) -> Facts:
        """Play it all and answer what the server says in the end. Raises ServerFailed, TocsinError."""
        with ExitStack() as stack:
            stack.callback(self.server.stop)
            stack.enter_context(self._hook)
            stack.enter_context(self._mailbox)
            self.server.start()
            self._narrator.tell("server", f"listens on {self.server.address}")
            client = stack.enter_context(tocsin.connect(self.server.address, timeout_s=30))
            self._set_up(client)
            stack.enter_context(Subscriber(self.server.address, self.ledger, self._narrator))
            stack.enter_context(Producer(self.server.address, self.ledger, self._narrator))
            self._kill_and_restart()
            self._wait_for_the_end()
            self._wait_for_settlement(client)
            return Facts(
                events=list(client.list_events(oldest_first=True)),
                deliveries=list(client.list_deliveries()),
                refused_signatures=self._hook.refused,
            )

    def _set_up(self, client: Client) -> None:
        failures = [tocsin.selector(level="error")]
        secret, pager_secret = tocsin.new_webhook_secret(), tocsin.new_webhook_secret()
        url = self._hook.expect("/failures", secret)
        client.create_configuration(tocsin.webhook("failures", url, secret, failures))
        mailbox = tocsin.mailbox(
            "on-call mailbox",
            "127.0.0.1",
            port=self._mailbox.port,
            security="none",
            from_address="tocsin@example.com",
            recipients=["oncall@example.com"],
            selectors=failures,
        )
        client.create_configuration(mailbox)
        pager_url = self._hook.expect("/pager", pager_secret)
        pager = client.create_configuration(tocsin.webhook("pager", pager_url, pager_secret))
        client.create_alert(_alert(pager.id))
        self._narrator.tell("story", "failures go to a webhook and a mailbox; an alert watches each image")

    def _kill_and_restart(self) -> None:
        ledger = self.ledger
        if not ledger.wait(lambda: len(ledger.acknowledged) >= KILL_AT, self._deadline):
            return
        self.server.kill()
        self._narrator.tell("server", f"killed (SIGKILL) after {len(ledger.acknowledged)} events")
        self.server.start()
        self._narrator.tell("server", "started again on the same files")

    def _wait_for_the_end(self) -> None:
        ledger = self.ledger
        ledger.wait(lambda: ledger.producer_done, self._deadline)
        self._narrator.tell("story", f"all {len(ledger.acknowledged)} events are appended")
        wanted = len(ledger.acknowledged)
        ledger.wait(lambda: sum(not entry.own for entry in ledger.arrived) >= wanted, self._deadline)
        failures = len(ledger.failures())
        ledger.wait(lambda: len(_ids(ledger.failures_posted)) >= failures, self._deadline)
        ledger.wait(lambda: len(_ids(ledger.mails)) >= failures, self._deadline)
        ledger.wait(lambda: len(_ids(ledger.alerts_posted)) >= 2, self._deadline)
        ledger.wait(lambda: ledger.own_types() >= TRANSITIONS, self._deadline)

    def _wait_for_settlement(self, client: Client) -> None:
        # A receiver has a message before the server has written down that it has.
        while any(client.list_deliveries(_OPEN)) and monotonic() < self._deadline:
            sleep(0.1)

    def _post(self, post: Post) -> None:
        if post.path == "/pager":
            self.ledger.note(self.ledger.alerts_posted, Received(post, monotonic()))
            self._narrator.tell("alert", post.body["text"])
        else:
            self.ledger.note(self.ledger.failures_posted, Received(post, monotonic()))
            self._narrator.tell("webhook", f"{post.body['type']} {post.body['data']['resource']['id']}")

    def _mail(self, mail: Mail) -> None:
        self.ledger.note(self.ledger.mails, Received(mail, monotonic()))
        self._narrator.tell("mail", mail.subject)


def _alert(pager_id: str) -> Alert:
    warn = {
        "kind": "warning",
        "text": "{{context.group.resource_id}} failed {{context.count}} times in {{params.window}}",
    }
    relax = {"kind": "recovery", "text": "{{context.group.resource_id}} is well again"}
    return tocsin.alert(
        "an image cannot be analysed",
        ".event-threshold",
        {
            "source": {"event_types": ["image.analysis.failed"], "levels": ["error"]},
            "window": WINDOW,
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


def _ids(entries: list[Received]) -> set[str]:
    return {entry.message.id for entry in entries}
