"""Notifications and alerting through both clients, on the real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
import tocsin
from tocsin.v1.alerting_pb2 import ALERT_STATUS_OK
from tocsin.v1.notifications_pb2 import DELIVERY_STATE_DELIVERED

from examples.receivers import Mail, Mailbox, Post, WebhookReceiver

TIMEOUT_S = 15


@pytest.fixture
def posts() -> Queue[Post]:
    return Queue()


@pytest.fixture
def receiver(posts: Queue[Post]) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(posts.put) as running:
        yield running


def test_a_webhook_from_its_creation_to_its_end(live: Any, receiver: WebhookReceiver, posts: Queue[Post]) -> None:
    secret = tocsin.new_webhook_secret()
    wanted = tocsin.webhook("ops", receiver.expect("/ops", secret), secret, [tocsin.selector("a.*")])
    hook = live.create_configuration(wanted, request_id="r-1")
    assert live.create_configuration(wanted, request_id="r-1").id == hook.id
    assert secret not in str(hook)

    tested = live.test_configuration(hook.id)
    assert tested.delivered
    assert posts.get(timeout=TIMEOUT_S).id == tested.delivery_id

    live.append("b.c")
    told = live.append("a.b", message="hello")
    post = posts.get(timeout=TIMEOUT_S)
    assert (post.body["type"], post.body["data"]["id"], post.body["data"]["message"]) == ("a.b", told.id, "hello")
    delivery = live.wait_for_delivery(event_id=told.id, timeout_s=TIMEOUT_S)
    assert (delivery.id, delivery.state) == (post.id, DELIVERY_STATE_DELIVERED)
    assert [attempt.number for attempt in live.get_delivery(delivery.id).attempts] == [1]
    assert {found.id for found in live.list_deliveries(configuration_id=hook.id)} == {delivery.id, tested.delivery_id}
    assert list(live.list_deliveries(["exhausted"])) == []

    live.delete_configuration(hook.id)
    with pytest.raises(tocsin.NotFound):
        live.delete_configuration(hook.id)


def test_an_unsaved_mailbox_can_be_tested(live: Any) -> None:
    mails: Queue[Mail] = Queue()
    with Mailbox(mails.put) as running:
        wanted = tocsin.mailbox(
            "ops",
            "127.0.0.1",
            port=running.port,
            security="none",
            from_address="tocsin@example.com",
            recipients=["a@example.com", "b@example.com"],
        )
        assert live.test_configuration(wanted).delivered
        assert mails.get(timeout=TIMEOUT_S).recipients == ("a@example.com", "b@example.com")


def test_a_delivery_that_does_not_end_in_time(live: Any) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # without listen() it refuses, and nobody else can take it
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/"
        hook = live.create_configuration(tocsin.webhook("x", url, tocsin.new_webhook_secret(), [tocsin.selector()]))
        told = live.append("a.b")
        with pytest.raises(TimeoutError, match="a delivery"):
            live.wait_for_delivery(event_id=told.id, timeout_s=0.3)
        live.delete_configuration(hook.id)


def test_an_alert_from_its_creation_to_its_end(live: Any) -> None:
    params = {"source": {"levels": ["error"]}, "window": "5s", "threshold": 3}
    wanted = tocsin.alert("failing", ".event-threshold", params, interval="1s", tags=["x"])
    alert = live.create_alert(wanted, request_id="r-1")
    assert live.create_alert(wanted, request_id="r-1").id == alert.id
    assert live.wait_for_alert(alert.id, "ok", timeout_s=TIMEOUT_S).execution_status.status == ALERT_STATUS_OK
    live.append_many([tocsin.draft("a.b", level="error") for _ in range(3)])
    live.wait_for_alert(alert.id, "active", timeout_s=TIMEOUT_S)
    assert list(live.get_alert_state(alert.id).alert_instances) == ["*"]
    live.delete_alert(alert.id)
    with pytest.raises(tocsin.NotFound):
        live.get_alert(alert.id)


def test_a_refused_alert_says_why(live: Any) -> None:
    with pytest.raises(tocsin.AlertTypeNotRegistered):
        live.create_alert(tocsin.alert("x", ".no-such-type", {}))
    with pytest.raises(tocsin.InvalidField) as raised:
        live.create_alert(tocsin.alert("x", ".event-threshold", {"window": "5s"}))
    assert raised.value.violations
