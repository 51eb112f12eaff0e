"""How a server is reached: address, protection, who is calling, deadlines. Pure but for reading files."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tocsin.retries import Backoff

if TYPE_CHECKING:
    import grpc

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 10.0

# The server allows a ping every 10 s; 30 s finds a dead peer within 40 s and stays far from its limit.
# Short reconnects: a restarted server is found within about two seconds. Own subchannels: a client's
# backoff is not that of another one which met the dead server earlier.
_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates in PEM. Without roots the system's are used; key and chain are for mutual TLS.

    `server_name` is the name that the server's certificate must have, when it is not the address.
    """

    roots: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    chain: bytes | None = None
    server_name: str = ""

    @classmethod
    def from_files(
        cls,
        *,
        roots: str | Path | None = None,
        key: str | Path | None = None,
        chain: str | Path | None = None,
        server_name: str = "",
    ) -> TLS:
        """Read the certificates from PEM files. Raises OSError when one cannot be read."""
        return cls(_contents(roots), _contents(key), _contents(chain), server_name)


def _contents(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


class Options(TypedDict, total=False):
    """What `connect` and `connect_async` can be told beside the address.

    `api_key` is sent as a bearer token, `account` is the account that an admin acts for. `tls`: TLS
    or True protects the connection, False does not, None (default) protects it unless the address is
    loopback. `allow_plaintext_key` permits an unprotected key beyond loopback. `timeout_s` (10) is
    the deadline of a call with all its retries. `backoff` is between retries. `channel_options` are
    added to those of gRPC and win over ours.
    """

    api_key: str | None
    account: str | None
    tls: TLS | bool | None
    allow_plaintext_key: bool
    timeout_s: float
    backoff: Backoff
    channel_options: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and in which context: what goes into the metadata of every call."""

    api_key: str | None = field(default=None, repr=False)
    account: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Answer the headers that are set."""
        headers = {
            "authorization": self.api_key and f"Bearer {self.api_key}",
            "x-tocsin-account": self.account,
            "x-request-id": self.request_id,
            "x-correlation-id": self.correlation_id,
            "traceparent": self.traceparent,
        }
        return tuple((name, value) for name, value in headers.items() if value)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a client knows about its server and its calls."""

    address: str
    tls: TLS | None
    caller: Caller
    timeout_s: float
    backoff: Backoff
    channel_options: tuple[tuple[str, int | str], ...]

    @classmethod
    def of(cls, address: str, options: Options) -> Settings:
        """Settle address and options. Raises ValueError for a key that would travel unprotected."""
        local = is_loopback(address)
        tls = _tls(options.get("tls"), local)
        api_key = options.get("api_key")
        if api_key and tls is None and not local and not options.get("allow_plaintext_key", False):
            raise ValueError(f"an API key is not sent to {address} without TLS; allow_plaintext_key=True does")
        return cls(
            address=address,
            tls=tls,
            caller=Caller(api_key=api_key, account=options.get("account")),
            timeout_s=options.get("timeout_s", DEFAULT_TIMEOUT_S),
            backoff=options.get("backoff", Backoff()),
            channel_options=_channel_options(tls, options.get("channel_options") or {}),
        )

    def in_context(self, **context: str | None) -> Settings:
        """Answer these settings with other fields of `Caller`."""
        return replace(self, caller=replace(self.caller, **context))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Make the credentials of a protected channel; None for a plain one."""
        if self.tls is None:
            return None
        import grpc  # noqa: PLC0415 - who calls has loaded it

        return grpc.ssl_channel_credentials(self.tls.roots, self.tls.key, self.tls.chain)


def _tls(wanted: TLS | bool | None, local: bool) -> TLS | None:
    if isinstance(wanted, TLS):
        return wanted
    protect = not local if wanted is None else wanted
    return TLS() if protect else None


def _channel_options(tls: TLS | None, wanted: Mapping[str, int | str]) -> tuple[tuple[str, int | str], ...]:
    options: dict[str, int | str] = dict(_CHANNEL_OPTIONS)
    if tls is not None and tls.server_name:
        options["grpc.ssl_target_name_override"] = tls.server_name
    return tuple({**options, **wanted}.items())


def is_loopback(address: str) -> bool:
    """Tell whether an address stays on this machine: "127.0.0.1:50051", "[::1]:1", "unix:/path"."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
