"""The table at the end: how much of what there was, how long it took, and which promises were kept."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples.demo.checks import Check, Facts
from examples.demo.ledger import Ledger, Received
from examples.demo.stream import SICK_IMAGE


def print_report(console: Console, ledger: Ledger, facts: Facts, checks: list[Check]) -> None:
    """Print both tables."""
    console.print()
    console.print(_figures(ledger, facts))
    verdicts = Table("Promise", "Kept", title="What was checked")
    for check in checks:
        verdict = f"[bold red]NO: {escape(check.problem)}" if check.problem else "[green]yes"
        verdicts.add_row(check.promise, verdict)
    console.print(verdicts)


def _figures(ledger: Ledger, facts: Facts) -> Table:
    began = {entry.id: entry.began_at for entry in ledger.acknowledged}
    event_of = {delivery.id: delivery.event.id for delivery in facts.deliveries}
    table = Table("What", "How many", "Median", "Slowest", title="What happened")
    for column in table.columns[1:]:
        column.justify = "right"
    appends = [entry.done_at - entry.began_at for entry in ledger.acknowledged]
    table.add_row("events appended, until durable", str(len(appends)), *_times(appends))
    table.add_row("  of which failures", str(len(ledger.failures())), "", "")
    lags = [entry.at - began[entry.id] for entry in ledger.arrived if entry.id in began]
    table.add_row("events followed live, after append", str(len(lags)), *_times(lags))
    table.add_row("  connections of the subscriber", str(ledger.connections), "", "")
    posts = _latencies(ledger.failures_posted, event_of, began)
    table.add_row("webhook messages, after append", str(len(ledger.failures_posted)), *_times(posts))
    mails = _latencies(ledger.mails, event_of, began)
    table.add_row("mails, after append", str(len(ledger.mails)), *_times(mails))
    transitions = sum(entry.own for entry in ledger.arrived)
    table.add_row("alert transitions in the log", str(transitions), "", "")
    table.add_row("alert messages, the first after the third failure", *_alerting(ledger))
    table.add_row("deliveries recorded", str(len(facts.deliveries)), "", "")
    attempts = sum(delivery.attempt_count for delivery in facts.deliveries)
    table.add_row("  attempts needed for them", str(attempts), "", "")
    table.caption = "The slowest ones met the outage."
    return table


def _alerting(ledger: Ledger) -> tuple[str, str, str]:
    sick = [entry.done_at for entry in ledger.acknowledged if entry.resource == SICK_IMAGE]
    told = [entry.at for entry in ledger.alerts_posted]
    warned = [told[0] - sick[2]] if told and len(sick) > 2 else []
    return str(len(told)), *_times(warned)


def _latencies(entries: Iterable[Received], event_of: dict[str, str], began: dict[str, float]) -> list[float]:
    found = [(event_of.get(entry.message.id, ""), entry.at) for entry in entries]
    return [at - began[id] for id, at in found if id in began]


def _times(latencies_s: list[float]) -> tuple[str, str]:
    if not latencies_s:
        return "-", "-"
    return f"{median(latencies_s) * 1000:.1f} ms", f"{max(latencies_s) * 1000:.0f} ms"
