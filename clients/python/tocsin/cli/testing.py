"""A test message through a receiver, and the attempt as it was."""

from __future__ import annotations

import typer

from tocsin import receivers
from tocsin.cli import rendering
from tocsin.cli.attempts import attempt_lines, recipient_lines
from tocsin.cli.misuse import FAILED
from tocsin.cli.session import Session
from tocsin.v1 import notifications_pb2 as pb

_ATTEMPT_S = 60.0  # a receiver has 15 s to answer, a mail server some more


def run(session: Session, target: str | pb.EndpointConfiguration, format: str) -> None:
    """Test a stored configuration, by its id, or an unsaved one. Leaves the command where it was not taken."""
    screen = session.screen
    timeout_s = max(session.connection.timeout, _ATTEMPT_S)
    request = receivers.test_request(target)
    with screen.step("Testing configuration", "Tested configuration"):
        response = session.client.notifications.TestEndpointConfiguration(request, timeout=timeout_s)
    if format == "json-raw":
        screen.line(rendering.raw_text(response))
    elif format == "json":
        screen.line(rendering.json_text({"delivered": response.delivered} | rendering.plain(response)))
    else:
        screen.line("The receiver has taken the message." if response.delivered else "It was not delivered.")
        lines = attempt_lines(response.attempt, screen.width) + recipient_lines(response.recipients, screen.width)
        for line in lines:
            screen.line(line)
        if response.delivery_id:
            screen.line(f"Delivery: {response.delivery_id}")
    if not response.delivered:
        raise typer.Exit(FAILED)
