"""A protected connection, with a client certificate and a key."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import tocsin
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tocsin.v1 import event_log_pb2 as pb

from tests.client.scripted import Script, answer, serving


@dataclass(frozen=True)
class Identity:
    """A self-signed certificate and its key, in PEM."""

    chain: bytes
    key: bytes


def identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tocsin test")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.fixture(scope="module")
def server_side() -> Identity:
    return identity()


@pytest.fixture(scope="module")
def client_side() -> Identity:
    return identity()


@pytest.fixture
def script(server_side: Identity, client_side: Identity) -> Iterator[Script]:
    credentials = grpc.ssl_server_credentials(
        [(server_side.key, server_side.chain)], client_side.chain, require_client_auth=True
    )
    with serving(credentials) as found:
        yield found


def test_mutual_tls_with_a_key(
    script: Script, connect: Any, server_side: Identity, client_side: Identity, tmp_path: Path
) -> None:
    roots, key, chain = tmp_path / "roots", tmp_path / "key", tmp_path / "chain"
    roots.write_bytes(server_side.chain)
    key.write_bytes(client_side.key)
    chain.write_bytes(client_side.chain)
    tls = tocsin.TLS.from_files(roots=roots, key=key, chain=chain)
    script.on("GetEvent", answer(pb.GetEventResponse(event=pb.Event(id="x"))))
    client = connect(script.address, tls=tls, api_key="k1")
    assert client.get_event("x").id == "x"
    assert script.seen[0].metadata["authorization"] == "Bearer k1"


def test_an_unknown_server_is_refused(script: Script, connect: Any, client_side: Identity) -> None:
    client = connect(script.address, tls=tocsin.TLS(roots=client_side.chain))
    with pytest.raises(tocsin.Unavailable):
        client.delete_event("x")  # is not repeated, so it need not wait for a deadline
    assert script.seen == []
