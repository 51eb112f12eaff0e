"""`tocsin listen`: webhooks, received on this machine."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Annotated, Any

import tocsin
from tocsin import receivers
from tocsin.cli import rendering
from tocsin.cli.escaping import escaped, json_escaped
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.misuse import Misuse
from tocsin.cli.receiving import Received, Receiver, Target
from tocsin.cli.screen import Screen
from tocsin.cli.selection import Selection
from tocsin.cli.session import Session
from tocsin.cli.tables import cut
from tocsin.cli.taking import takes
from tocsin.signatures import signing_key

PORT = 8800
_RETRIES_S = [5, 10, 30, 60, 300]  # of a receiver that is there for a while only


def _own(name: str, help: str, metavar: str | None = "string", **more: Any) -> Any:
    variable = "TOCSIN_LISTEN_" + name.strip("-").upper().replace("-", "_")
    return flag(name, variable, help, metavar, **more)


@takes
def listen(
    session: Session,
    selection: Selection,
    output: Output,
    host: Annotated[str, _own("--host", "address to listen on", show_default=True)] = "127.0.0.1",
    port: Annotated[
        int, _own("--port", "port to listen on; 0 is any", "int32", min=0, max=65535, show_default=True)
    ] = PORT,
    secret: Annotated[
        list[str] | None,
        _own("--secret", "a signing key, whsec_...; may be given again (others see it: use the variable)", "SECRET"),
    ] = None,
    forward: Annotated[
        str, _own("--forward", "hand verified webhooks on to this URL, and answer as it does", "URL")
    ] = "",
    create: Annotated[
        bool, _own("--create", "create a receiver that posts here, and delete it at the end", None)
    ] = False,
    url: Annotated[
        str, _own("--url", "with --create: where the server reaches this machine (else http://HOST:PORT/)", "URL")
    ] = "",
    count: Annotated[
        int | None, flag("-n", "TOCSIN_COUNT", "end after so many verified ones", "int32", also=("--count",), min=1)
    ] = None,
) -> None:
    """Receive webhooks here: prints those whose signature is right, and says what cannot be trusted.

    The key is that of the receiver's configuration. With --create there is one for as long as this runs: it is told
    about events that match any --preset or --selector (else about all), and deleted at the end. With --forward, body
    and headers go on to another URL as they came, and its answer is given back; else the answer is 204. What is not
    verified is answered 401 and not handed on. The output is text (a line, then the body), json (a line for each, with
    id, time and body), json-raw (the body as it came, on a line), or the delivery's id.
    """
    format = output.one_of(session, *FORMATS)
    secrets = _secrets(secret or [], create)
    if not create and session.typed & {"preset", "selector", "url"}:
        raise Misuse("--create", "is missing: --preset, --selector and --url are for a receiver that is created")
    target = _target(forward)
    queue: SimpleQueue[Received] = SimpleQueue()
    try:
        receiver = Receiver(host, port, secrets, queue.put, target)
    except OSError as error:
        raise Misuse("--port", f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    here = f"http://{f'[{host}]' if ':' in host else host}:{receiver.port}/"
    with receiver, _ended_by_signals():
        if not create:
            session.screen.note(f"Listening on {here}; Ctrl-C ends it")
            _print(session.screen, queue, format, count, forward)
            return
        with _created(session, selection, url or here, secrets[0]):
            session.screen.note(f"Listening on {here}; Ctrl-C ends it and deletes the receiver")
            _print(session.screen, queue, format, count, forward)


def _secrets(given: list[str], create: bool) -> list[str]:
    """Settle the keys. Raises Misuse for none."""
    if not given and not create:
        raise Misuse("--secret", "is missing: give the receiver's signing key, or --create to have a receiver made")
    for one in given:
        try:
            signing_key(one)
        except ValueError as error:
            raise Misuse("--secret", str(error)) from None
    return given or [receivers.new_webhook_secret()]


def _target(forward: str) -> Target | None:
    try:
        return Target(forward) if forward else None
    except ValueError as error:
        raise Misuse("--forward", str(error)) from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End in order on SIGTERM too, as on Ctrl-C: what was created is deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _created(session: Session, selection: Selection, url: str, secret: str) -> Iterator[None]:
    """Have a receiver's configuration for a while."""
    screen = session.screen
    selectors = selection.selectors(session) or [receivers.selector()]
    options = receivers.delivery_options(retry_schedule_s=_RETRIES_S)
    wanted = receivers.webhook("tocsin listen", url, secret, selectors, options=options)
    with screen.step("Creating receiver", "Created receiver"):
        id = session.client.create_configuration(wanted).id
    screen.note(f"Receiver {id} posts to {url}")
    try:
        yield
    finally:
        try:
            session.client.delete_configuration(id)
            screen.note(f"Deleted receiver {id}")
        except tocsin.NotFound:
            screen.note(f"Receiver {id} was deleted already")
        except tocsin.TocsinError as error:
            screen.complain(f"receiver {id} is still there ({error}): tocsin endpoint configuration delete {id}")


def _print(screen: Screen, queue: SimpleQueue[Received], format: str, count: int | None, forward: str) -> None:
    verified = 0
    while verified != count:
        one = queue.get()
        if one.refused:
            size = f"{len(one.body)} bytes" if one.body else "no body"
            screen.complain(f"NOT VERIFIED, answered {one.status}: POST {one.path} ({size}): {one.refused}")
            continue
        if one.unreached:
            screen.complain(f"{one.id} was not handed on to {forward}, answered {one.status}: {one.unreached}")
        _show(screen, one, format)
        verified += 1


def _show(screen: Screen, one: Received, format: str) -> None:
    data = _data(one.body)
    if format == "id":
        screen.line(escaped(one.id))
    elif format == "json-raw":
        screen.line(json_escaped(_text(one.body).replace("\r", "").replace("\n", " ")))
    elif format == "json":
        time = one.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        found = {"id": one.id, "time": time, "path": one.path, "status": one.status, "body": data}
        screen.line(rendering.json_text(found, indent=None))
    else:
        _show_text(screen, one, data)
    screen.flush()


def _show_text(screen: Screen, one: Received, data: Any) -> None:
    type = data.get("type", "") if isinstance(data, dict) else ""
    parts = [one.time.strftime("%H:%M:%SZ"), one.id, str(one.status), str(type)]
    line = "  ".join(escaped(part) for part in parts if part)
    start = len(parts[0]) + len(escaped(parts[1])) + 4
    colour = "green" if one.status < 300 else "red"
    width = screen.width
    screen.line(line if width is None else cut(line, width), (start, start + 3, colour))
    body = escaped(data, lines=True) if isinstance(data, str) else rendering.yaml_text(data)
    for text in body.rstrip("\n").splitlines():
        shown = f"  {text}"
        screen.line(shown if width is None else cut(shown, width))


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _data(body: bytes) -> Any:
    """Answer the body as data where it is JSON, else as text."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _text(body)
