"""Protection is the default where it matters, and a key does not travel in the clear by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
from tocsin.settings import TLS, Options, Settings, is_loopback


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("ipv4:127.0.0.1:1", False),
        ("dns:///127.0.0.1:1", True),
        ("unix:/run/x.sock", True),
        ("10.0.0.1:1", False),
        ("localhost.example.com:1", False),
        ("example.com:443", False),
    ],
)
def test_loopback(address: str, local: bool) -> None:
    assert is_loopback(address) is local


@pytest.mark.parametrize(
    ("address", "options", "protected"),
    [
        ("127.0.0.1:1", Options(), False),
        ("example.com:1", Options(), True),
        ("127.0.0.1:1", Options(tls=True), True),
        ("example.com:1", Options(tls=False), False),
        ("127.0.0.1:1", Options(tls=TLS(roots=b"pem")), True),
        ("127.0.0.1:1", Options(api_key="k"), False),
        ("example.com:1", Options(api_key="k"), True),
        ("example.com:1", Options(api_key="k", tls=False, allow_plaintext_key=True), False),
    ],
)
def test_protection(address: str, options: Options, protected: bool) -> None:
    assert (Settings.of(address, options).tls is not None) is protected


def test_a_key_in_the_clear_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not sent to example\.com"):
        Settings.of("example.com:1", Options(api_key="k", tls=False))


def test_secrets_are_not_printed() -> None:
    settings = Settings.of("example.com:1", Options(api_key="hidden-key", tls=TLS(key=b"hidden-pem")))
    assert "hidden" not in repr(settings)


def test_headers_are_those_that_are_set() -> None:
    settings = Settings.of("localhost:1", Options(api_key="k", account="blue"))
    settings = settings.in_context(request_id="r", correlation_id="c", traceparent="t")
    assert dict(settings.caller.metadata()) == {
        "authorization": "Bearer k",
        "x-tocsin-account": "blue",
        "x-request-id": "r",
        "x-correlation-id": "c",
        "traceparent": "t",
    }
    assert Settings.of("localhost:1", Options()).caller.metadata() == ()


def test_channel_options_can_be_replaced() -> None:
    settings = Settings.of("localhost:1", Options(channel_options={"grpc.keepalive_time_ms": 1, "x": 2}))
    assert dict(settings.channel_options)["grpc.keepalive_time_ms"] == 1
    assert dict(settings.channel_options)["x"] == 2


def test_certificates_from_files(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(b"pem")
    tls = TLS.from_files(roots=tmp_path / "roots.pem", server_name="inner.example")
    assert (tls.roots, tls.key, tls.chain) == (b"pem", None, None)
    settings = Settings.of("localhost:1", Options(tls=tls))
    assert dict(settings.channel_options)["grpc.ssl_target_name_override"] == "inner.example"
    with pytest.raises(OSError, match="nowhere"):
        TLS.from_files(key=tmp_path / "nowhere.pem")
