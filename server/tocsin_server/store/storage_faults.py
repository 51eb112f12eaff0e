"""Whose fault it is that a transaction failed: the disk's, and in which way, or a unit's own."""

from __future__ import annotations

import sqlite3

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.store.database import StoreGone

DISK_FAULTS = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )
)


def is_io_fault(error: BaseException) -> bool:
    """Tell whether the disk could not be read, written or synced: what is in memory cannot be trusted then."""
    return isinstance(error, StoreGone) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


def is_storage_fault(error: BaseException) -> bool:
    """Tell whether an exception is the disk's fault: then the whole transaction is in doubt, not one unit."""
    # The lower byte is the primary code; a mistake in a statement (SQLITE_ERROR) is the unit's own fault.
    if isinstance(error, StoreGone):
        return True
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in DISK_FAULTS


def storage_failure(error: BaseException) -> BaseException:
    """Say in the product's terms that a transaction was not stored; a bug stays what it is."""
    if not is_storage_fault(error):
        return error
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return TocsinError(Reason.STORAGE_FULL, "the store's disk is full; nothing was stored", retry_s=5.0)
    return TocsinError(Reason.STORAGE_FAILED, "the store did not take the write; nothing was stored", retry_s=1.0)
