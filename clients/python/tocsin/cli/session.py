"""What all commands share: where the server is, who calls, and the screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import typer

import tocsin
from tocsin.cli.misuse import Misuse
from tocsin.cli.screen import Screen
from tocsin.settings import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, TLS

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.client import Client

_QUICK_S = 0.5  # a server that is there has answered by then


@dataclass(frozen=True)
class Connection:
    """The global flags: how the server is reached."""

    address: Annotated[
        str, typer.Option("--address", envvar="TOCSIN_ADDRESS", metavar="HOST:PORT", help="address of the server")
    ] = DEFAULT_ADDRESS
    api_key: Annotated[
        str, typer.Option("--api-key", envvar="TOCSIN_API_KEY", metavar="KEY", help="key to call with")
    ] = ""
    account: Annotated[
        str, typer.Option("--account", envvar="TOCSIN_ACCOUNT", metavar="NAME", help="account that an admin acts for")
    ] = ""
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", envvar="TOCSIN_TLS", help="protect the connection  [default: unless loopback]"),
    ] = None
    tls_roots: Annotated[
        str,
        typer.Option("--tls-roots", envvar="TOCSIN_TLS_ROOTS", metavar="FILE", help="PEM file with trusted roots"),
    ] = ""
    tls_key: Annotated[
        str, typer.Option("--tls-key", envvar="TOCSIN_TLS_KEY", metavar="FILE", help="PEM file with the client's key")
    ] = ""
    tls_chain: Annotated[
        str,
        typer.Option(
            "--tls-chain", envvar="TOCSIN_TLS_CHAIN", metavar="FILE", help="PEM file with the client's certificates"
        ),
    ] = ""
    tls_server_name: Annotated[
        str,
        typer.Option(
            "--tls-server-name",
            envvar="TOCSIN_TLS_SERVER_NAME",
            metavar="NAME",
            help="name in the server's certificate",
        ),
    ] = ""
    allow_plaintext_key: Annotated[
        bool,
        typer.Option(
            "--allow-plaintext-key",
            envvar="TOCSIN_ALLOW_PLAINTEXT_KEY",
            help="send the key in plain text beyond loopback",
        ),
    ] = False
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar="TOCSIN_TIMEOUT",
            metavar="SECONDS",
            min=0.001,
            help="deadline of one call with its retries",
        ),
    ] = DEFAULT_TIMEOUT_S
    request_id: Annotated[
        str,
        typer.Option(
            "--x-request-id", envvar="TOCSIN_X_REQUEST_ID", metavar="ID", help="header x-request-id of every call"
        ),
    ] = ""
    correlation_id: Annotated[
        str,
        typer.Option(
            "--x-correlation-id",
            envvar="TOCSIN_X_CORRELATION_ID",
            metavar="ID",
            help="header x-correlation-id of every call",
        ),
    ] = ""
    quiet: Annotated[bool, typer.Option("-q", "--quiet", envvar="TOCSIN_QUIET", help="no status lines")] = False


@dataclass
class Session:
    """One run of the command line."""

    connection: Connection
    screen: Screen = field(default_factory=Screen)
    typed: frozenset[str] = frozenset()
    """Parameters of the command that were given as words, not by variables: words win where both are there."""

    @cached_property
    def client(self) -> Client:
        """The client; it connects with its first call. Raises Misuse for what cannot be reached so."""
        given = self.connection
        try:
            client = tocsin.connect(
                given.address,
                api_key=given.api_key or None,
                account=given.account or None,
                tls=self._tls(),
                allow_plaintext_key=given.allow_plaintext_key,
                timeout_s=given.timeout,
            )
        except ValueError as error:
            raise Misuse("--api-key", str(error)) from None
        return client.in_context(request_id=given.request_id or None, correlation_id=given.correlation_id or None)

    def reach(self) -> None:
        """See that the server is there. One that is not is waited for as long as a call may take, and never silently.

        It is for commands that go on by themselves once they have begun: a wrong address is an error now.
        """
        from tocsin.v1.system_pb2 import GetInfoRequest  # noqa: PLC0415 - with the call

        try:
            self.client.system.GetInfo(GetInfoRequest(), timeout=_QUICK_S)
        except (tocsin.Unavailable, tocsin.DeadlineExceeded):
            address, timeout_s = self.connection.address, self.connection.timeout
            self.screen.note(f"No server answers at {address} yet; waiting for it, at most {timeout_s:g} s")
            self.client.info()

    def _tls(self) -> TLS | bool | None:
        given = self.connection
        files = {"roots": given.tls_roots, "key": given.tls_key, "chain": given.tls_chain}
        if not any(files.values()) and not given.tls_server_name:
            return given.tls
        if given.tls is False:
            raise Misuse("--no-tls", "does not go with certificates")
        try:
            return TLS.from_files(
                roots=files["roots"] or None,
                key=files["key"] or None,
                chain=files["chain"] or None,
                server_name=given.tls_server_name,
            )
        except OSError as error:
            raise Misuse("TLS", f"{error.filename}: {error.strerror}") from None

    def now(self) -> datetime:
        """Answer the time that stretches are counted back from."""
        return datetime.now(UTC)
