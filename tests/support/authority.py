"""An authority of the tests' own, and the certificates that it signs."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.SubjectAlternativeName:
    try:
        return x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    except ValueError:
        return x509.SubjectAlternativeName([x509.DNSName(host)])


class Authority:
    """Signs certificates; `pem` is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("an authority of tests")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self._signed(self._key, self._name, constraints, timedelta())
        self.pem = certificate.public_bytes(PEM).decode()

    def _signed(self, key: Any, name: x509.Name, extension: x509.ExtensionType, ago: timedelta) -> x509.Certificate:
        now = datetime.now(UTC) - ago
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        return builder.sign(self._key, hashes.SHA256())

    def context(self, host: str, expired: bool = False) -> ssl.SSLContext:
        """Make what a server for a host needs: a key and a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(key, _named("receiver"), _alternative(host), 7 * DAY if expired else timedelta())
        file = self._folder / f"{certificate.serial_number}.pem"
        file.write_bytes(
            certificate.public_bytes(PEM)
            + key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context
