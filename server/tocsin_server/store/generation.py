"""The count of changes of all that routing goes by: configurations, switches and silences.

The router checks it inside its own transaction, so no event passes by a change that was committed before.
"""

from __future__ import annotations

from tocsin_server.store.writer import Transaction

GENERATION = "configurations"  # the cursor that counts


def raise_generation(transaction: Transaction) -> None:
    """Have the router read everything anew before it goes on."""
    transaction.connection.execute(
        "INSERT INTO cursors (name, position, epoch) VALUES (?, 1, 0)"
        " ON CONFLICT (name) DO UPDATE SET position = position + 1",
        (GENERATION,),
    )
