"""Which class a fault on the way to a receiver is of: ours, the network's, or the receiver's."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from tocsin_server.domain.verdicts import ErrorClass

# Nothing gets out of this machine, or it has nothing left to send with.
OWN_ERRNOS = frozenset(
    (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
)


def class_of(error: BaseException) -> ErrorClass:
    """Find the class of a fault in what caused it; libraries wrap it several times."""
    causes = list(_causes(error))
    for cause in causes:
        found = _class_of_one(cause)
        if found is not None:
            return found
    if any(isinstance(cause, OSError) for cause in causes):
        return ErrorClass.CONNECTION_ERROR
    return ErrorClass.PROTOCOL_ERROR


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give what lies beneath a fault, the innermost first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        before = None if cause.__suppress_context__ else cause.__context__
        cause = getattr(cause, "os_error", None) or cause.__cause__ or before
    return reversed(found)


def _class_of_one(error: BaseException) -> ErrorClass | None:
    if isinstance(error, socket.gaierror):
        return ErrorClass.DNS_UNAVAILABLE if error.errno == socket.EAI_AGAIN else ErrorClass.DNS_ERROR
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return ErrorClass.TLS_ERROR
    if isinstance(error, ConnectionRefusedError):
        return ErrorClass.CONNECTION_REFUSED
    if isinstance(error, ConnectionResetError | BrokenPipeError | EOFError):
        return ErrorClass.CONNECTION_RESET
    if isinstance(error, TimeoutError):
        return ErrorClass.TIMEOUT
    if isinstance(error, OSError) and error.errno in OWN_ERRNOS:
        return ErrorClass.NETWORK_UNREACHABLE
    if type(error).__name__ in ("ServerDisconnectedError", "SMTPServerDisconnected"):
        return ErrorClass.CONNECTION_RESET
    return None
