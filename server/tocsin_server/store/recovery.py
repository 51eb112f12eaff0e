"""Recovery: deliveries that a person has tried now, ended, or begun anew."""

from __future__ import annotations

from tocsin_server.domain.deliveries import RECOVERABLE, RECOVERED_MAX, DeliveryQuery, Recovered
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.store import delivery_lists
from tocsin_server.store.holds import waiting_state
from tocsin_server.store.writer import Transaction

STEP = 500  # rows of one transaction
# A test is tried once; what a digest tells begins anew with it; an alert's message that could not be made
# has nothing that could be sent.
ANEW = (
    f"state IN ({', '.join(repr(str(state)) for state in sorted(RECOVERABLE))}) AND route_key NOT GLOB 'test/*'"
    " AND NOT (alert_id <> '' AND reason = 'RENDER') AND digest_id = ''"
)
BEGUN_ANEW = "state = ?, reason = ?, due_at = ?, scheduled = 0, ended_at = 0"


def retry(transaction: Transaction, account: str, delivery_id: str) -> Delivery:
    """Have a delivery tried now."""
    row, _ = delivery_lists.get(transaction.connection, account, delivery_id)
    if row.state in (State.PENDING, State.RETRYING):
        transaction.connection.execute(
            "UPDATE deliveries SET due_at = ? WHERE account = ? AND id = ?",
            (transaction.log.created_at, account, delivery_id),
        )
    elif not _begin_anew(transaction, row.account, row.configuration_id, "id = ?", (delivery_id,)):
        raise _not_now(row, "tried again")
    return delivery_lists.get(transaction.connection, account, delivery_id)[0]


def cancel(transaction: Transaction, account: str, delivery_id: str) -> Delivery:
    """End a delivery that waits."""
    row, _ = delivery_lists.get(transaction.connection, account, delivery_id)
    if row.state not in (State.PENDING, State.RETRYING, State.PAUSED):
        raise _not_now(row, "cancelled")
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'CANCELLED', reason = 'BY_HAND', ended_at = ? WHERE account = ? AND id = ?",
        (transaction.log.created_at, account, delivery_id),
    )
    return delivery_lists.get(transaction.connection, account, delivery_id)[0]


def step(transaction: Transaction, query: DeliveryQuery) -> int:
    """Have some of what has ended undelivered begin anew; give how many."""
    where, values = "created_at >= ?", [query.since]
    if query.until:
        where += " AND created_at < ?"
        values.append(query.until)
    return _begin_anew(transaction, query.account, query.configuration_id, where, tuple(values))


def _begin_anew(
    transaction: Transaction, account: str, configuration_id: str, where: str, values: tuple[object, ...]
) -> int:
    state, reason = waiting_state(transaction.connection, account, configuration_id)
    if state is State.CANCELLED:  # there is nobody to send it to
        return 0
    state = State.PENDING if state is State.RETRYING else state
    rows = (
        "SELECT rowid FROM deliveries WHERE account = ? AND configuration_id = ?"
        f" AND {where} AND {ANEW} ORDER BY created_at, id LIMIT {STEP}"
    )
    cursor = transaction.connection.execute(
        f"UPDATE deliveries SET {BEGUN_ANEW} WHERE rowid IN ({rows})",
        (state, reason, transaction.log.created_at, account, configuration_id, *values),
    )
    return int(cursor.rowcount)


def bounded(count: int, step_count: int) -> Recovered | None:
    """Say whether a recovery is done after a step; None when it goes on."""
    if step_count < STEP:
        return Recovered(count, more=False)
    return Recovered(count, more=True) if count >= RECOVERED_MAX else None


def _not_now(row: Delivery, what: str) -> TocsinError:
    text = f"delivery {row.id} is {row.state}{f' ({row.reason})' if row.reason else ''} and cannot be {what}"
    if row.digest_id:
        text += f": the digest {row.digest_id} tells it"
    return TocsinError(Reason.DELIVERY_STATE, text, metadata={"state": str(row.state), "reason": row.reason})
