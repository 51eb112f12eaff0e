"""The settings of notifications, and the webhooks of the log itself."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.config import ConfigError, load

from tests.service.test_explanations import routed
from tests.service.test_notifications import created, mail, settled
from tests.service.test_start import run
from tests.support.receivers import SECRET, Mailbox, WebhookReceiver
from tests.support.servers import Api, refused, serving

OTHER = (("x-tocsin-account", "acme"),)
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def webhooks(hook: WebhookReceiver, *names: str, **more: Any) -> dict[str, Any]:
    """Give the settings of webhooks, each with a path of its own."""
    settings: dict[str, Any] = {"event_log__notification__enabled": True}
    for name in names:
        settings |= {f"webhooks__{name}__url": f"{hook.url}/{name}", f"webhooks__{name}__secret": SECRET}
    return settings | more


async def configurations(api: Api) -> dict[str, pb.EndpointConfiguration]:
    found = await api.notifications.ListEndpointConfigurations(pb.ListEndpointConfigurationsRequest())
    return {configuration.id: configuration for configuration in found.configurations}


async def test_the_log_posts_nothing_by_itself(tmp_path: Path, hook: WebhookReceiver) -> None:
    """B34, C16: off by default, even where webhooks are defined; nothing is kept for them either."""
    settings = webhooks(hook, "general") | {"event_log__notification__enabled": False}
    async with serving(tmp_path, **settings) as api:
        event = await api.append("a")
        await routed(api, event.position)
        found = (await configurations(api))["config:general"]
        assert not found.enabled
        assert not (await api.notifications.ListDeliveries(pb.ListDeliveriesRequest())).deliveries
    assert not hook.posted


async def test_a_secret_that_changes_in_the_settings_holds_beside_the_new_one(
    tmp_path: Path, hook: WebhookReceiver
) -> None:
    """So that a receiver can follow: for a day both sign, over restarts too."""
    new = "whsec_" + base64.b64encode(b"n" * 32).decode()
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        assert "config:general" in await configurations(api)
    for count in (1, 2):
        async with serving(tmp_path, **webhooks(hook, "general", webhooks__general__secret=new)) as api:
            await api.append("a")
            posted = (await hook.until(count))[-1]
            assert len(posted.headers["webhook-signature"].split(" ")) == 2
            assert posted.verified() == posted.verified(new)


async def test_the_log_posts_every_event_of_every_account(tmp_path: Path, hook: WebhookReceiver) -> None:
    """B35, B37, C16: to the webhook `general` where no other is defined."""
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        mine, theirs = await api.append("a"), await api.append("b", metadata=OTHER)
        posted = await hook.until(2)
        assert {p.verified()["data"]["id"] for p in posted} == {mine.id, theirs.id}
        assert {p.path for p in posted} == {"/hook/general"}
        found = (await configurations(api))["config:general"]
        assert (found.account, found.enabled, found.webhook.secret) == ("admin", True, "****LaSw")
        rows = await settled(api, configuration_id="config:general")
        assert {row.state for row in rows} == {pb.DELIVERY_STATE_DELIVERED}


async def test_event_update_comes_before_general(tmp_path: Path, hook: WebhookReceiver) -> None:
    """B37: exactly one of them is used, the first if it is defined; both are shown."""
    async with serving(tmp_path, **webhooks(hook, "event_update", "general")) as api:
        await api.append("a")
        await hook.until(1)
        found = await configurations(api)
        assert {i: c.enabled for i, c in found.items()} == {"config:event_update": True, "config:general": False}
    # A restart without the first uses the other, and forgets the first.
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        await api.append("b")
        posted = await hook.until(2)
        assert [p.path for p in posted] == ["/hook/event_update", "/hook/general"]
        assert set(await configurations(api)) == {"config:general"}


async def test_only_some_levels_are_posted(tmp_path: Path, hook: WebhookReceiver) -> None:
    """B36: an empty list means all."""
    settings = webhooks(hook, "event_update", event_log__notification__level=["error"])
    async with serving(tmp_path, **settings) as api:
        await api.append("a")
        error = await api.append("b", level=log_pb.LEVEL_ERROR)
        await routed(api, error.position)
        assert [p.verified()["data"]["id"] for p in await hook.until(1)] == [error.id]


async def test_user_and_password_are_sent(tmp_path: Path, hook: WebhookReceiver) -> None:
    settings = webhooks(hook, "general", webhooks__general__user="ann", webhooks__general__password="hunter2")
    async with serving(tmp_path, **settings) as api:
        await api.append("a")
        (posted,) = await hook.until(1)
        assert posted.headers["authorization"] == "Basic " + base64.b64encode(b"ann:hunter2").decode()
        assert "hunter2" not in str(await configurations(api))


async def test_what_the_settings_define_is_changed_there(tmp_path: Path, hook: WebhookReceiver) -> None:
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        stub = api.notifications
        sent = pb.EndpointConfiguration(id="config:general", name="mine")
        for call in (
            stub.UpdateEndpointConfiguration(
                pb.UpdateEndpointConfigurationRequest(configuration=sent, update_mask=FieldMask(paths=["name"]))
            ),
            stub.DeleteEndpointConfiguration(pb.DeleteEndpointConfigurationRequest(id="config:general")),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "READ_ONLY")
        request = pb.DeleteEndpointConfigurationRequest(id="config:general")
        unknown = stub.DeleteEndpointConfiguration(request, metadata=OTHER)
        assert (await refused(unknown)).reason == "NOT_FOUND"
        test = await stub.TestEndpointConfiguration(pb.TestEndpointConfigurationRequest(id="config:general"))
        assert test.delivered
        # The switch of its kind holds for it as for all others.
        off = pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
        await stub.UpdateEndpoint(off)
        event = await api.append("a")
        await routed(api, event.position)
        listed = await stub.ListDeliveries(pb.ListDeliveriesRequest(event_id=event.id))
        assert [d.state for d in listed.deliveries] == [pb.DELIVERY_STATE_PAUSED]


async def test_a_restart_keeps_what_it_knows_of_them(tmp_path: Path, hook: WebhookReceiver) -> None:
    """What is appended before a restart is told once, whoever tells it; nothing older is told when levels change."""
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        first = (await configurations(api))["config:general"]
        await api.append("a")
        await hook.until(1)
    async with serving(tmp_path, **webhooks(hook, "general")) as api:
        again = (await configurations(api))["config:general"]
        assert (again.create_time, again.update_time) == (first.create_time, first.update_time)
        event = await api.append("b")
        await routed(api, event.position)
        # What `routed` appends besides is sent at the same time: either may arrive first.
        await hook.until(3)
        assert hook.posted[0].verified()["type"] == "a"
        assert sorted(p.verified()["type"] for p in hook.posted) == ["a", "b", "marker.of.the.test"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"event_log__notification__enabled": True}, "needs webhooks.event_update.url or webhooks.general.url"),
        ({"webhooks__general__url": "http://127.0.0.1:1/"}, "webhooks.general.secret"),
        ({"webhooks__general__url": "ftp://x/", "webhooks__general__secret": SECRET}, "webhooks.general.url"),
        ({"event_log__notification__level": ["warn"]}, "event_log.notification.level = 'warn' is none of info, error"),
        ({"server__authorization_handler": "external"}, "server.authorization_handler = 'external'"),
    ],
)
async def test_settings_that_make_no_sense_are_refused_at_start(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        async with serving(tmp_path, **settings):
            pass


async def test_a_file_gives_the_settings_of_the_source(tmp_path: Path) -> None:
    """A11, A12, A13, A14, A15, A16, A17, A18, B35, B36: each key of the source has its place in the file."""
    file = tmp_path / "tocsin.toml"
    file.write_text(
        """
        [server]
        require_auth = true
        endpoint_hostname = "tocsin.example.com"
        listen = "0.0.0.0"
        port = 8228
        ui_url = "https://ui.example.com"
        [notifications]
        enabled = true
        cycle_timers.notifications = 15
        [event_log.notification]
        enabled = true
        level = ["error"]
        """
    )
    settings = load(file, environment={})
    assert settings["server.require_auth"] is True
    assert settings["server.endpoint_hostname"] == "tocsin.example.com"
    assert (settings["server.listen"], settings["server.port"]) == ("0.0.0.0", 8228)
    assert settings["notifications.enabled"] is True
    assert settings["notifications.cycle_timers.notifications"] == 15
    assert load(environment={})["notifications.cycle_timers.notifications"] == 30
    assert settings["event_log.notification.level"] == ["error"]
    shown = run("config", "show", "--config", str(file)).stdout
    assert re.search(rf"server.port += 8228 +# {re.escape(str(file))}, restart", shown)


async def test_events_of_the_server_name_its_host(tmp_path: Path) -> None:
    """A14."""
    async with serving(tmp_path, server__endpoint_hostname="tocsin-1") as api:
        silence = pb.Silence(filter=log_pb.EventFilter(types=["a"]), comment="c")
        request = pb.CreateSilenceRequest(silence=silence)
        request.duration.seconds = 60
        await api.notifications.CreateSilence(request)
        (event,) = (await api.events.ListEvents(log_pb.ListEventsRequest())).events
        assert (event.source.service, event.source.host) == ("tocsin", "tocsin-1")


async def test_nothing_is_sent_while_notifications_are_off(tmp_path: Path, hook: WebhookReceiver) -> None:
    """A12: and what was routed meanwhile is sent after a restart with them on."""
    settings = webhooks(hook, "general")
    async with serving(tmp_path, notifications__enabled=False, **settings) as api:
        event = await api.append("a")
        await routed(api, event.position)
        listed = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(event_id=event.id))
        assert [d.state for d in listed.deliveries] == [pb.DELIVERY_STATE_PENDING]
    assert not hook.posted
    async with serving(tmp_path, **settings):
        assert (await hook.until(1))[0].verified()["data"]["id"] == event.id


@pytest.mark.parametrize("url", ["https://ui.example.com", ""])
async def test_messages_have_a_link_where_there_is_one(tmp_path: Path, box: Mailbox, url: str) -> None:
    """A18, A19: a mail ends with a link, or is sent without."""
    async with serving(tmp_path, server__ui_url=url) as api:
        await created(api, mail(box, "ann@example.com"))
        await api.append("a", message="disk full")
        ((_, message),) = await box.until(1)
        text = message.get_body(("plain",)).get_content() if message.is_multipart() else message.get_content()  # type: ignore[union-attr]
        assert "disk full" in text
        assert ("https://ui.example.com" in text) is bool(url)


async def test_a_signal_reloads_what_can_be(tmp_path: Path) -> None:
    """A21, XF17: a change takes effect after a restart, but for what `config show` marks as `reload`."""
    shown = run("config", "show").stdout.splitlines()
    assert {line.partition(" ")[0] for line in shown if line.endswith("reload")} == {"log.level"}
    assert all(line.endswith(("restart", "reload")) for line in shown)
    file = tmp_path / "tocsin.toml"
    file.write_text('[log]\nlevel = "error"\nformat = "json"\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tocsin_server", "serve", "--dev", "--port", "0", "--data", str(tmp_path / "data"),
        "--config", str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(30):
        await process.stdout.readline()
        for text, said in (('level = "loud"', "not reloaded"), ('level = "info"', "the settings were reloaded")):
            file.write_text(f'[log]\n{text}\nformat = "console"\n')  # which waits for a restart
            process.send_signal(signal.SIGHUP)
            assert said in json.loads(await process.stderr.readline())["event"]
        process.terminate()
        assert await process.wait() == 0


def test_every_setting_is_documented() -> None:
    """A11, A21: docs/configuration.md names each with its default and when a change takes effect."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \| (restart|reload) \|", text, re.MULTILINE)
    assert rows == [(s.name, s.shown(), s.effect) for s in load(environment={}).all()]
