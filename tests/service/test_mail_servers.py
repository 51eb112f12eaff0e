"""How mail gets to a mail server: protection, users, connections that are kept, and what each answer means."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.domain.notifications import EndpointConfiguration, Message, RecipientVerdict
from tocsin_server.domain.selection import Selector
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.endpoints import _smtp
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.email import Email
from tocsin_server.store.delivery_rows import recipients as read_recipients

from tests.service.test_notifications import EVERYTHING, created, settled
from tests.support.authority import Authority
from tests.support.delivery_scenarios import clock, house, states
from tests.support.dispatch_house import Clock, DispatchHouse
from tests.support.mail_servers import DROP, HANG, MailServer, mail_server, scripted
from tests.support.receivers import plain_of
from tests.support.servers import Api, refused

__all__ = ["clock", "house"]
ANN, BEN, EVE = "ann@example.com", "ben@example.com", "eve@example.com"
TLS, STARTTLS, NONE = "TLS", "STARTTLS", "NONE"


@pytest_asyncio.fixture
async def email() -> AsyncIterator[Email]:
    kind = Email(Egress(["127.0.0.0/8"]), deadline_s=5.0)
    yield kind
    await kind.close()


def reached(server: MailServer, security: str = NONE, **more: Any) -> dict[str, Any]:
    connection = {"host": "127.0.0.1", "port": server.port, "security": security, "from_address": "tocsin@example.com"}
    return connection | {"recipients": [ANN]} | more


def message(number: int = 1, *done: RecipientVerdict) -> Message:
    return Message(f"d{number}", 1_800_000_000_000_000, subject={"test": True}, done_recipients=done)


@pytest.mark.parametrize("security", [TLS, STARTTLS])
async def test_a_mail_goes_protected_to_a_server_with_users(api: Api, tmp_path: Path, security: str) -> None:
    """By TLS from the first byte and by STARTTLS, with a certificate of one's own authority."""
    authority = Authority(tmp_path)
    context = authority.context("127.0.0.1")
    way = {"implicit": context} if security == TLS else {"starttls": context}
    async with mail_server(users=True, **way) as server:
        connection = pb.EmailConnection(
            host="127.0.0.1", port=server.port, security=pb.EmailSecurity.Value(f"EMAIL_SECURITY_{security}"),
            from_address="tocsin@example.com", recipients=[ANN], username="ann", password="pass word",
            ca_certificate=authority.pem,
        )  # fmt: skip
        await created(api, pb.EndpointConfiguration(name="mail", email=connection, selectors=[EVERYTHING]))
        await api.append("a")
        (delivery,) = await settled(api)
        assert delivery.state == pb.DELIVERY_STATE_DELIVERED
        assert (server.logins, [recipients for recipients, _ in server.mails]) == (["ann"], [[ANN]])


async def test_a_wrong_password_pauses_the_configuration_until_it_is_mended(
    house: DispatchHouse, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with mail_server(users=True, starttls=authority.context("127.0.0.1")) as server:
        connection = reached(server, STARTTLS, username="ann", password="wrong", ca_certificate=authority.pem)
        configuration = await configured(house, connection)
        await house.append("user.a", "user.b")
        await house.deliver_all()
        assert states(house) == {"PAUSED CREDENTIALS": 2}
        health = await house.health(configuration)
        assert (health.state, health.reason) == ("FAILING", "CREDENTIALS")
        assert not server.mails
        assert set(server.logins) == {"ann"}
        mended = {**configuration.connection, "password": "pass word"}
        await house.notifications.update("admin", configuration.id, lambda old: replace(old, connection=mended))
        await house.deliver_all()
        assert states(house) == {"DELIVERED": 2}


@pytest.mark.parametrize("name", ["expired", "of another host", "of an unknown authority", "too old a protocol"])
@pytest.mark.parametrize("security", [TLS, STARTTLS])
async def test_what_cannot_be_trusted_gets_nothing(email: Email, tmp_path: Path, security: str, name: str) -> None:
    """XD22: neither the mail nor the password, and nothing goes in the clear instead."""
    authority = Authority(tmp_path)
    host = "127.0.0.2" if name == "of another host" else "127.0.0.1"
    context = authority.context(host, expired=name == "expired")
    if name == "too old a protocol":
        with warnings.catch_warnings(action="ignore"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    trusted = Authority(tmp_path) if name == "of an unknown authority" else authority
    way = {"implicit": context} if security == TLS else {"starttls": context}
    async with mail_server(users=True, **way) as server:
        connection = reached(server, security, username="ann", password="pass word", ca_certificate=trusted.pem)
        outcome = await email.send(message(), connection)
        without = await email.send(message(), connection | {"ca_certificate": ""})
        if name != "too old a protocol":  # of that, some servers say nothing and hang up
            assert {o.error_class for o in (outcome, without)} == {ErrorClass.TLS_ERROR}, (outcome, without)
        assert outcome.verdict is Verdict.RETRY
        assert not server.mails
        assert not server.logins


async def test_a_server_without_starttls_gets_nothing(email: Email) -> None:
    """XD22: no downgrade."""
    async with scripted({"EHLO": "250-mail.test\r\n250 AUTH PLAIN LOGIN"}) as server:
        outcome = await email.send(message(), reached(server, STARTTLS, username="ann", password="pass word"))
        assert (outcome.verdict, outcome.error_class) == (Verdict.RETRY, ErrorClass.TLS_ERROR)
        assert outcome.error.endswith("the server does not offer STARTTLS")
        assert [c.partition(" ")[0] for c in server.commands] == ["EHLO"]
    async with scripted({"EHLO": "250-mail.test\r\n250 STARTTLS", "STARTTLS": "454 not now"}) as server:
        outcome = await email.send(message(), reached(server, STARTTLS))
        assert (outcome.verdict, outcome.error_class) == (Verdict.RETRY, ErrorClass.TLS_ERROR)
        assert [c.partition(" ")[0] for c in server.commands] == ["EHLO", "STARTTLS"]


async def test_a_certificate_that_is_none_is_refused_when_saved(api: Api) -> None:
    connection = pb.EmailConnection(
        host="mail.example.com", from_address="a@example.com", recipients=[ANN], ca_certificate="none"
    )
    refusal = await refused(created(api, pb.EndpointConfiguration(name="mail", email=connection)))
    assert list(refusal.fields) == ["configuration.email.ca_certificate"]


# What a server says, at which command, and what follows.
ANSWERS: list[tuple[dict[str, Any], Verdict, ErrorClass]] = [
    ({}, Verdict.DELIVERED, ErrorClass.NONE),
    ({"": "421 too busy"}, Verdict.RETRY, ErrorClass.OVERLOADED),
    ({"": "554 go away"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"": "SSH-2.0-OpenSSH_9.2"}, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
    ({"": "HTTP/1.1 400 Bad Request"}, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
    ({"": DROP}, Verdict.RETRY, ErrorClass.CONNECTION_RESET),
    ({"": HANG}, Verdict.RETRY, ErrorClass.TIMEOUT),
    ({"EHLO": "502 what?"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"EHLO": DROP}, Verdict.RETRY, ErrorClass.CONNECTION_RESET),
    ({"MAIL": "451 later"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"MAIL": "530 who are you?"}, Verdict.CONFIGURATION, ErrorClass.CREDENTIALS),
    ({"MAIL": "553 not your address"}, Verdict.CONFIGURATION, ErrorClass.CREDENTIALS),
    ({"MAIL": "552 too large"}, Verdict.PERMANENT, ErrorClass.REFUSED),
    ({"RCPT": "450 greylisted"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"RCPT": "421 I am going"}, Verdict.RETRY, ErrorClass.OVERLOADED),
    ({"RCPT": "452 too many recipients"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"RCPT": "552 too many recipients"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"RCPT": "550 no such user"}, Verdict.PERMANENT, ErrorClass.REFUSED),
    ({"RCPT": "350 what?"}, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
    ({"DATA": "451 later"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({"DATA": "554 no"}, Verdict.PERMANENT, ErrorClass.REFUSED),
    ({"DATA": "250 what?"}, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
    ({"DATA": DROP}, Verdict.RETRY, ErrorClass.CONNECTION_RESET),
    ({".": "452 no room"}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    ({".": "554 this is spam \udcff"}, Verdict.PERMANENT, ErrorClass.REFUSED),
    ({".": DROP}, Verdict.RETRY, ErrorClass.INTERRUPTED),
    ({".": HANG}, Verdict.RETRY, ErrorClass.INTERRUPTED),
    ({".": "what?"}, Verdict.RETRY, ErrorClass.INTERRUPTED),
    ({"QUIT": HANG}, Verdict.DELIVERED, ErrorClass.NONE),
]


@pytest.mark.parametrize(("script", "verdict", "error_class"), ANSWERS, ids=lambda part: str(part)[:40])
async def test_each_answer_has_its_verdict(
    script: dict[str, Any], verdict: Verdict, error_class: ErrorClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XD25: 4xx is tried again, 5xx ends it, and no answer to a whole mail is in doubt."""
    monkeypatch.setattr(_smtp, "QUIT_DEADLINE_S", 0.2)
    kind = Email(Egress(["127.0.0.0/8"]), deadline_s=0.5 if HANG in script.values() else 5.0)
    async with scripted(script) as server:
        outcome = await kind.send(message(), reached(server))
        assert (outcome.verdict, outcome.error_class) == (verdict, error_class), outcome
        outcome.error.encode()
        outcome.response_excerpt.encode()
        await kind.close()


async def test_our_own_outage_is_nobody_elses(email: Email, monkeypatch: pytest.MonkeyPatch) -> None:
    """XD32 for mail: no name can be looked up, or every connection is busy."""
    monkeypatch.setattr(_smtp, "PLACE_S", 0.05)
    async with scripted({"": HANG}) as server:
        others = [asyncio.create_task(email.send(message(), reached(server))) for _ in range(_smtp.CONNECTIONS_MAX)]
        async with asyncio.timeout(10):
            while server.connections < _smtp.CONNECTIONS_MAX:
                await asyncio.sleep(0.01)
        outcome = await email.send(message(), reached(server))
        assert (outcome.verdict, outcome.error_class) == (Verdict.OUTAGE, ErrorClass.INTERNAL)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    nowhere = {"host": "127.0.0.1", "port": 9, "security": NONE, "from_address": "a@example.com", "recipients": [ANN]}
    outcome = await email.send(message(), nowhere)
    assert (outcome.verdict, outcome.error_class) == (Verdict.RETRY, ErrorClass.CONNECTION_REFUSED)


async def test_a_way_to_log_in_that_is_not_known_pauses_the_configuration(email: Email) -> None:
    async with scripted({"EHLO": "250-mail.test\r\n250 AUTH GSSAPI"}) as server:
        outcome = await email.send(message(), reached(server, username="ann"))
        assert (outcome.verdict, outcome.error_class) == (Verdict.CONFIGURATION, ErrorClass.CREDENTIALS)
    for answer, verdict in (("535 no", Verdict.CONFIGURATION), ("454 later", Verdict.RETRY)):
        async with scripted({"EHLO": "250-mail.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5", "AUTH": answer}) as server:
            assert (await email.send(message(), reached(server, username="ann"))).verdict is verdict
            assert len([c for c in server.commands if c.startswith("AUTH")]) == 1


async def test_a_sender_of_an_actions_own_is_no_fault_of_the_configuration(email: Email) -> None:
    own = Message("d1", 0, params={"from": "boss@example.com"}, subject={"alert_id": "x"})
    async with scripted({"MAIL": "553 not your address"}) as server:
        outcome = await email.send(own, reached(server))
        assert (outcome.verdict, outcome.error_class) == (Verdict.PERMANENT, ErrorClass.REFUSED)


async def configured(house: DispatchHouse, connection: dict[str, Any]) -> EndpointConfiguration:
    selector = Selector("account", "*", "user.*", "*")
    draft = EndpointConfiguration("", "admin", "email", "mail", "", True, connection, (selector,))
    return await house.notifications.create(draft, "", b"")


async def test_only_those_that_have_not_got_it_are_sent_to_again(house: DispatchHouse, clock: Clock) -> None:
    """XD25: each has its own verdict over several attempts, and nobody gets a second copy."""
    async with mail_server() as server:
        server.refuse = {BEN: ["450 greylisted", "451 still"], EVE: ["550 no such user"]}
        await configured(house, reached(server, recipients=[ANN, BEN, EVE]))
        await house.append("user.a")
        await house.deliver_all()
        assert states(house) == {"RETRYING": 1}
        for wait_s in (6, 400):
            clock.pass_s(wait_s)
            await house.deliver_all()
        assert [recipients for recipients, _ in server.mails] == [[ANN], [BEN]]
        assert len({mail["Message-ID"] for _, mail in server.mails}) == 1
        assert states(house) == {"EXHAUSTED PERMANENT": 1}
        ((found,),) = house.sql("SELECT recipients FROM deliveries")
        assert {r.recipient: (r.verdict, r.status_code) for r in read_recipients(found)} == {
            ANN: (Verdict.DELIVERED, 250),
            BEN: (Verdict.DELIVERED, 250),
            EVE: (Verdict.PERMANENT, 550),
        }


async def test_a_mail_in_doubt_is_sent_again_under_its_id(email: Email) -> None:
    """XD25: dropped after the dot."""
    ends = iter([DROP, "250 taken"])
    async with scripted({".": lambda: next(ends)}) as server:
        outcome = await email.send(message(), reached(server, recipients=[ANN, BEN]))
        assert [(r.verdict, r.status_code) for r in outcome.recipients] == [(Verdict.RETRY, 0)] * 2
        assert "may have taken it" in outcome.error
        again = await email.send(message(1, *outcome.recipients), reached(server, recipients=[ANN, BEN]))
        assert again.verdict is Verdict.DELIVERED
        first, second = (mail for _, mail in server.mails)
        assert first["Message-ID"] == second["Message-ID"] == "<d1@example.com>"


async def test_who_has_got_it_is_not_sent_to_when_a_person_asks_again(email: Email) -> None:
    """Those that were refused are, as the person may have mended what they were refused for."""
    done = (RecipientVerdict(ANN, Verdict.DELIVERED, 250), RecipientVerdict(EVE, Verdict.PERMANENT, 550))
    async with mail_server() as server:
        assert (
            await email.send(message(1, *done), reached(server, recipients=[ANN, EVE]))
        ).verdict is Verdict.DELIVERED
        assert [recipients for recipients, _ in server.mails] == [[EVE]]
        assert (await email.send(message(1, done[0]), reached(server))).verdict is Verdict.DELIVERED
        assert len(server.mails) == 1


async def test_connections_are_kept_and_shared_by_nobody_else(email: Email) -> None:
    """One after the other over one connection; other credentials get a connection of their own."""
    async with mail_server() as server:
        for number in range(5):
            assert (await email.send(message(number), reached(server))).verdict is Verdict.DELIVERED
        assert server.connections == 1
        server.refuse = {EVE: ["550 no such user"]}
        assert (await email.send(message(), reached(server, recipients=[EVE]))).verdict is Verdict.PERMANENT
        assert (await email.send(message(), reached(server))).verdict is Verdict.DELIVERED
        assert server.connections == 1
    async with scripted({"EHLO": "250-mail.test\r\n250 AUTH PLAIN", "AUTH": "235 welcome"}) as server:
        for password in ("right", "right", "wrong"):
            await email.send(message(), reached(server, username="ann", password=password))
        assert server.connections == 2


async def test_a_kept_connection_that_has_died_costs_no_attempt(email: Email, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_server() as server:
        await email.send(message(1), reached(server))
        server.break_off()
        assert (await email.send(message(2), reached(server))).verdict is Verdict.DELIVERED
        assert server.connections == 2
    monkeypatch.setattr(_smtp, "ALIVE_DEADLINE_S", 0.1)
    for late in ("421 too long idle", HANG, DROP):
        begins = iter(["250 OK", late, "250 OK"])
        async with scripted({"MAIL": lambda begins=begins: next(begins)}) as server:  # type: ignore[misc]
            for number in (1, 2):
                assert (await email.send(message(number), reached(server))).verdict is Verdict.DELIVERED
            assert server.connections == 2


async def test_connections_are_few_and_end_when_they_are_not_used(
    email: Email, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_smtp, "IDLE_S", 0.1)
    async with mail_server() as server:
        outcomes = await asyncio.gather(*(email.send(message(n), reached(server)) for n in range(40)))
        assert {o.verdict for o in outcomes} == {Verdict.DELIVERED}
        assert server.most_open <= _smtp.CONNECTIONS_MAX
        async with asyncio.timeout(10):
            await server.quiet.wait()
        monkeypatch.setattr(_smtp, "MAILS_MAX", 1)
        before = server.connections
        for number in range(3):
            await email.send(message(number), reached(server))
        assert server.connections == before + 3


async def test_a_mail_of_dots_arrives_as_it_was(email: Email) -> None:
    body = ".\r\n..two\r\nFrom here\r\n.end"
    own = Message("d1", 0, params={"subject": "s", "body": body}, subject={"alert_id": "x"})
    async with mail_server() as server:
        await email.send(own, reached(server))
        ((_, mail),) = server.mails
        assert plain_of(mail).splitlines() == body.splitlines()
