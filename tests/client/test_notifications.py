"""Deliveries, silences, configurations and explanations through both clients, on the real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from queue import Queue
from typing import Any

import pytest
import tocsin
from tocsin import deliveries, receivers, silences
from tocsin.v1 import notifications_pb2 as pb

from examples.demo.server import Server
from examples.receivers import Post, WebhookReceiver

TIMEOUT_S = 15
SECRET = tocsin.new_webhook_secret()


@pytest.fixture
def posts() -> Queue[Post]:
    return Queue()


@pytest.fixture
def receiver(posts: Queue[Post]) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(posts.put) as running:
        yield running


@pytest.fixture
def deaf() -> Iterator[str]:
    """Answer a URL at which nobody listens."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # without listen() it refuses, and nobody else can take it
        yield f"http://127.0.0.1:{unheard.getsockname()[1]}/"


def failing(live: Any, deaf: str) -> Any:
    """Create a receiver that fails, with a waiting delivery; answers that."""
    options = tocsin.delivery_options(retry_schedule_s=[86_400])
    hook = live.create_configuration(tocsin.webhook("x", deaf, SECRET, [tocsin.selector()], options=options))
    with live.watch_deliveries(["retrying"], configuration_id=hook.id) as stream:
        answers = iter(stream)
        assert not next(answers).deliveries
        live.append("a.b")
        return next(found for answer in answers for found in answer.deliveries)


def test_a_failing_delivery_is_watched_found_and_decided_about(live: Any, deaf: str) -> None:
    waiting = failing(live, deaf)
    assert waiting.state == pb.DELIVERY_STATE_RETRYING
    hour = timedelta(hours=1)
    wanted = {"error_classes": ["connection_refused"], "since": datetime.now(UTC) - hour}
    assert [found.id for found in live.list_deliveries(["retrying"], **wanted)] == [waiting.id]
    assert list(live.list_deliveries(until=datetime.now(UTC) - hour)) == []
    assert list(live.list_deliveries(status_codes=["5xx"])) == []
    assert live.retry_delivery(waiting.id).id == waiting.id
    statistics = live.delivery_statistics()
    assert (statistics.routed, statistics.open) == (1, 1)
    assert live.get_configuration(waiting.configuration_id).health.state == pb.HEALTH_STATE_HEALTHY


def test_a_cancelled_delivery_is_recovered(live: Any, deaf: str) -> None:
    waiting = failing(live, deaf)
    assert live.cancel_delivery(waiting.id).reason == "BY_HAND"
    with pytest.raises(tocsin.DeliveryInState) as raised:
        live.cancel_delivery(waiting.id)
    assert raised.value.metadata["state"] == "CANCELLED"
    past = datetime.now(UTC) - timedelta(days=1)
    assert live.recover_deliveries(waiting.configuration_id, until=past) == 0
    assert live.recover_deliveries(waiting.configuration_id, since=past) == 1
    with pytest.raises(tocsin.NotFound):
        live.recover_deliveries("nobody")


def test_a_configuration_is_changed_in_part_or_whole(live: Any, receiver: WebhookReceiver) -> None:
    hook = live.create_configuration(tocsin.webhook("ops", receiver.expect("/", SECRET), SECRET))
    assert [found.id for found in live.list_configurations("webhook")] == [hook.id]
    assert list(live.list_configurations("email")) == []
    hook.name, hook.description = "pager", "not asked for"
    assert live.update_configuration(hook, ["name"]).description == ""
    changed = live.update_configuration(hook)
    assert (changed.name, changed.description) == ("pager", "not asked for")
    assert live.test_configuration(hook.id).delivered  # the masked secret was kept
    assert live.get_configuration(hook.id) == changed


def test_endpoints_have_switches_of_the_admin(live: Any, shared: Server, connect: Any) -> None:
    assert {"email", "webhook"} <= {endpoint.kind for endpoint in live.list_endpoints()}
    with pytest.raises(tocsin.PermissionDenied):
        live.switch_endpoint("email", False)
    admin = connect(shared.address)
    assert not admin.switch_endpoint("email", False).enabled
    assert admin.switch_endpoint("email", True).enabled
    with pytest.raises(tocsin.NotFound):
        admin.switch_endpoint("pigeon", True)


def test_an_event_is_explained_and_previewed(live: Any, receiver: WebhookReceiver) -> None:
    (errors,) = [preset for preset in live.list_selector_presets() if preset.id == "user-errors"]
    options = tocsin.delivery_options(body='{"text": "{{message}} {{nonsense}}"}')
    url = receiver.expect("/", SECRET)
    hook = live.create_configuration(tocsin.webhook("ops", url, SECRET, [errors.selector], options=options))
    event = tocsin.draft("user.image.added", message="hello")
    answer = live.explain_event(event)
    assert answer.event.type == "user.image.added"
    (explanation,) = answer.explanations
    assert explanation.fate == pb.EVENT_FATE_NOT_SELECTED
    assert [missed.criterion for missed in explanation.selectors[0].missed] == ["level"]
    stored = live.append("user.image.lost", level="error")
    (explanation,) = live.explain_event(stored.id, configuration_id=hook.id).explanations
    assert explanation.fate == pb.EVENT_FATE_SENT
    shown = live.preview_notification(hook.id, event)
    assert (shown.body, list(shown.missing)) == ('{"text": "hello "}', ["nonsense"])
    assert live.preview_notification(tocsin.webhook("x", url, SECRET), stored.id).content_type == "application/json"


def test_a_silence_from_its_creation_to_its_end(live: Any) -> None:
    made = live.create_silence(types=["a.*"], comment="we know", duration=timedelta(hours=1), author="ann")
    assert (made.state, made.author) == (pb.SILENCE_STATE_ACTIVE, "ann")
    assert made.end_time.seconds - made.start_time.seconds == 3600
    start = datetime.now(UTC) + timedelta(days=1)
    later = live.create_silence(tocsin.event_filter(types=["b"]), comment="x", start=start, end=start + timedelta(1))
    assert [found.id for found in live.list_silences(["pending"])] == [later.id]
    assert {found.id for found in live.list_silences()} == {made.id, later.id}
    changed = live.update_silence(later.id, comment="y", types=["c"])
    assert (changed.comment, changed.author, list(changed.filter.types)) == ("y", later.author, ["c"])
    assert live.get_silence(later.id) == changed
    with pytest.raises(tocsin.InvalidField, match="has passed; to end a silence at once, delete it"):
        live.update_silence(made.id, end=datetime.now(UTC))
    live.delete_silence(later.id)
    with pytest.raises(tocsin.NotFound):
        live.get_silence(later.id)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: deliveries.watch_request(error_classes=["rain"]), ValueError, "each of error_classes is one of"),
        (lambda: deliveries.watch_request(["sending"], colour="red"), TypeError, "not chosen by colour"),
        (lambda: deliveries.recover_request("x", since=datetime(2026, 1, 1)), ValueError, "needs a time zone"),
        (lambda: silences.create_request(None, "x", None, None, None, "", ""), TypeError, "an end or a duration"),
        (lambda: silences.update_request("x", None, None, None, None, None), TypeError, "what is to change"),
        (lambda: silences.list_request(["over"]), ValueError, "each of states is one of"),
        (lambda: tocsin.delivery_options(escape="latex"), ValueError, "escape is one of"),
        (lambda: tocsin.grouping("type"), TypeError, "by is a list of strings"),
        (lambda: receivers.update_request(pb.EndpointConfiguration(), "name"), TypeError, "fields is a list"),
    ],
)
def test_what_means_nothing_is_refused(make: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make()


def test_options_are_made_of_plain_values() -> None:
    options = tocsin.delivery_options(
        per_second=0.5,
        recipients=["a@example.com"],
        add_notification_payload=True,
        subject="{{type}}",
        escape="none",
        grouping=tocsin.grouping(["type"], wait=timedelta(seconds=5), interval=timedelta(minutes=1), max_items=9),
    )
    assert options.rate.per_second == 0.5
    assert (options.template.subject, options.escape) == ("{{type}}", pb.ESCAPE_NONE)
    assert (options.grouping.wait.seconds, options.grouping.interval.seconds) == (5, 60)
