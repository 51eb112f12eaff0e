"""Secrets that a client lets slip into an event are replaced before it is stored."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.redaction import SecretKeys, without_user

from tests.service.test_ingest import Ingesting
from tests.support.servers import Api, serving

NAMES = ("password", "passwd", "secret", "token", "api_key", "authorization", "creds")


def event(details: dict[str, Any] | None = None, **fields: Any) -> pb.Event:
    made = pb.Event(type="user.image.analysis_failed", **fields)
    if details is not None:
        made.details.struct_value.update(details)
    return made


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "X-Api-Key", "apiKey", "accessToken", "src-creds", "passwd"]
)
def test_a_key_that_ends_in_a_name_names_a_secret(key: str) -> None:
    assert SecretKeys(NAMES).names(key)


@pytest.mark.parametrize("key", ["password_length", "tokens", "secretary", "key", "", "api", "pass"])
def test_another_key_names_none(key: str) -> None:
    assert not SecretKeys(NAMES).names(key)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("pull https://bob:pw@reg.io/a failed", "pull https://****@reg.io/a failed"),
        ("https://reg.io/a@b", "https://reg.io/a@b"),
        ("https://reg.io/?mail=a@b.c", "https://reg.io/?mail=a@b.c"),
        ("bob@reg.io", "bob@reg.io"),
    ],
)
def test_the_user_of_a_url_is_replaced(text: str, kept: str) -> None:
    assert without_user(text) == kept


async def test_secrets_are_replaced_and_their_paths_are_told(tmp_path: Path) -> None:
    """D27, C08, XF8: neither an answer nor the file of the store has them."""
    details = {
        "cmd": "skopeo copy docker://bob:hunter2@reg.io/nginx",
        "registry": {"user": "bob", "Password": "hunter2", "port": 5000},
        "tries": [{"api-key": "hunter2"}, {"token": 12345678}, {"token": None}, {"secret": ""}],
        "authorization": {"bearer": "hunter2"},
    }
    sent = event(details, message="no access to https://bob:hunter2@reg.io")
    async with serving(tmp_path / "data") as api:
        answer = await api.events.AppendEvent(pb.AppendEventRequest(event=sent))
        read = (await api.events.GetEvent(pb.GetEventRequest(id=answer.event.id))).event
        batch = await api.events.AppendEvents(pb.AppendEventsRequest(events=[event({"a": 1}), sent]))
    assert sorted(answer.redacted_paths) == [
        "details.authorization",
        "details.cmd",
        "details.registry.Password",
        "details.tries[0].api-key",
        "details.tries[1].token",
        "message",
    ]
    assert [sorted(r.redacted_paths) for r in batch.results] == [[], sorted(answer.redacted_paths)]
    assert read == answer.event
    kept: Any = read.details.struct_value
    assert kept["registry"]["Password"] == "****"
    assert (kept["registry"]["user"], kept["registry"]["port"]) == ("bob", 5000)
    assert kept["authorization"] == "****"
    assert read.message == "no access to https://****@reg.io"
    for path in (tmp_path / "data").iterdir():
        assert b"hunter2" not in path.read_bytes(), path.name


async def test_placeholders_and_harmless_events_are_stored_as_sent(api: Api) -> None:
    """C08."""
    sent = event({"cmd": "skopeo --creds ${SKOPUSER}:${SKOPPASS}", "token": "****", "keys": ["a"]})
    answer = await api.events.AppendEvent(pb.AppendEventRequest(event=sent))
    assert not answer.redacted_paths
    assert answer.event.details == sent.details


async def test_a_repeat_is_known_by_what_was_sent_not_by_what_is_kept(api: Api) -> None:
    """XA20: digests are taken before secrets are replaced."""
    first = await api.events.AppendEvent(pb.AppendEventRequest(event=event({"password": "one"}, id="e")))
    again = await api.events.AppendEvent(pb.AppendEventRequest(event=event({"password": "one"}, id="e")))
    assert again == first
    assert again.redacted_paths == ["details.password"]
    with pytest.raises(Exception, match="stored with other content"):
        await api.events.AppendEvent(pb.AppendEventRequest(event=event({"password": "two"}, id="e")))


async def test_a_repeat_by_request_id_tells_the_same_of_secrets(api: Api) -> None:
    """P4, XA20: whoever had no answer sends again, and hears of every way in what the first answer said."""
    secret, plain = event({"password": "one"}), event({"a": 1})
    one = pb.AppendEventRequest(event=secret, request_id="r")
    answers = [await api.events.AppendEvent(one) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[1].redacted_paths == ["details.password"]
    many = pb.AppendEventsRequest(events=[plain, secret], request_id="r")
    results = [list((await api.events.AppendEvents(many)).results) for _ in range(2)]
    assert results[0] == results[1]
    assert [list(one.redacted_paths) for one in results[1]] == [[], ["details.password"]]
    told = []
    for _ in range(2):
        stream = Ingesting(api)
        await stream.send(pb.IngestRequest(events=[plain, secret], request_id="r"))
        told += [list(batch.results) for batch in await stream.end()]
    assert told[0] == told[1]
    assert [list(one.redacted_paths) for one in told[1]] == [[], ["details.password"]]


async def test_which_keys_name_secrets_is_a_setting(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", event_log__redacted_keys=["pin"]) as api:
        sent = event({"pin": "1234", "password": "kept"})
        answer = await api.events.AppendEvent(pb.AppendEventRequest(event=sent))
    assert answer.redacted_paths == ["details.pin"]
    assert answer.event.details.struct_value["password"] == "kept"
    with sqlite3.connect(tmp_path / "data" / "tocsin.db") as connection:
        (body,) = connection.execute("SELECT body FROM events").fetchone()
    connection.close()
    assert b"1234" not in body
