"""Answering what alerts ask of the log: `domain.aggregation.EventReads` over one connection.

Bound to an alert: it reads the log as the alert's owner, in its account only, and never sees an event
about the alert itself. What the columns can answer is one statement, whose work SQLite does without the
interpreter; what stands in `details` is decoded, of the matching events only, and of so many at the most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from tocsin_server.domain.aggregation import (
    EVENTS_DECODED_MAX,
    LABELS,
    NUMERIC,
    EventQuestion,
    EventSample,
    Group,
    aggregate,
    details_path,
    group_text,
)
from tocsin_server.domain.alerting import RunErrorReason
from tocsin_server.domain.event_log import OWN_SERVICE
from tocsin_server.domain.instances import RunFailure
from tocsin_server.domain.selection import EventFilter, sees_own_events
from tocsin_server.domain.transitions import RESOURCE_TYPE
from tocsin_server.domain.variables import Json
from tocsin_server.domain.where import compiled
from tocsin_server.store import selection, wire
from tocsin_server.store.database import Readers
from tocsin_server.store.selection import Where

T = TypeVar("T")
# Events of a question, newest first, among which samples are sought: a group that has none there shows none.
SAMPLES_SOUGHT_MAX = 20_000
LABEL = Where(f"coalesce((SELECT value FROM json_each({selection.LABELS}) WHERE key = ?), '')")


class Read(NamedTuple):
    """One event of a question: the values of its group and of the field, and whether it meets the `where`."""

    timestamp: int
    position: int
    created_at: int
    values: tuple[str, ...]
    value: Json
    matches: bool


def too_many() -> RunFailure:
    """Say that a window has more events than a run may decode."""
    text = f"more than {EVENTS_DECODED_MAX} events would have to be decoded: narrow the source or the window"
    return RunFailure(RunErrorReason.LIMIT, text)


class EventAggregates:
    """What one alert reads; see the port."""

    def __init__(self, connection: sqlite3.Connection, account: str, alert_id: str) -> None:
        self._connection = connection
        self._account = account
        self._alert_id = alert_id

    def aggregate(self, question: EventQuestion) -> list[Group]:
        """Answer the groups, those with most events first, equal ones by their values."""
        if question.needs_bodies:
            return aggregate(question, ((read.values, read.value) for read in self._decoded(question)))
        fields = [_column(field) for field in question.group_by]
        required = [*(fields if question.drop_missing else []), *([_column(question.field)] if question.field else [])]
        source = self._source(question, [Where(f"{one.sql} <> ''", one.values) for one in required])
        value = _value(question)
        what = selection.joined([Where("count(*)"), value, *fields], ", ")
        if not fields:
            count, found = self._connection.execute(
                f"SELECT {what.sql} {source.sql}", [*what.values, *source.values]
            ).fetchone()
            return [Group((), count, count if question.aggregation == "count" else found)]
        order = ", ".join(str(3 + place) for place in range(len(fields)))
        least, most = question.at_least, question.at_most
        having = "count(*) >= ?" if most is None else "count(*) BETWEEN ? AND ?"
        rows = self._connection.execute(
            f"SELECT {what.sql} {source.sql} GROUP BY {order} HAVING {having} ORDER BY 1 DESC, {order} LIMIT ?",
            [*what.values, *source.values, least, *([] if most is None else [most]), question.limit],
        )
        counts = question.aggregation == "count"
        return [Group(tuple(row[2:]), row[0], row[0] if counts else row[1]) for row in rows]

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Give the newest events of groups, at most `each` of one group."""
        if question.needs_bodies:
            return self._decoded_samples(question, groups, each)
        return self._newest(question, groups, each)

    def recorded_since(self) -> int | None:
        """Say since when what was appended is in the log as it stands."""
        row = self._connection.execute(
            "SELECT created_at FROM events WHERE position >="
            " (SELECT coalesce(max(position), 0) FROM horizons WHERE account IN (?, '')) ORDER BY position LIMIT 1",
            (self._account,),
        ).fetchone()
        return row[0] if row else None

    def _newest(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Read the newest events by an index, until each group has its own or the bound is reached."""
        found: dict[tuple[str, ...], list[int]] = {values: [] for values in groups}
        missing = each * len(found)
        what = selection.joined([Where("position"), *map(_column, question.group_by)], ", ")
        source = self._source(question, [])
        rows = self._connection.execute(
            f"SELECT {what.sql} {source.sql} ORDER BY timestamp DESC, position DESC LIMIT ?",
            [*what.values, *source.values, SAMPLES_SOUGHT_MAX],
        )
        for position, *values in rows:
            if not missing:
                break
            positions = found.get(tuple(values))
            if positions is not None and len(positions) < each:
                positions.append(position)
                missing -= 1
        rows.close()
        return {values: [self._sample(position) for position in positions] for values, positions in found.items()}

    def _decoded_samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        found: dict[tuple[str, ...], list[EventSample]] = {values: [] for values in groups}
        for read in sorted(self._decoded(question), reverse=True):
            samples = found.get(read.values)
            if samples is not None and len(samples) < each:
                samples.append(self._sample(read.position))
        return found

    def _sample(self, position: int) -> EventSample:
        event_id, event_type, timestamp, body = self._connection.execute(
            "SELECT id, type, timestamp, body FROM events WHERE position = ?", (position,)
        ).fetchone()
        return EventSample(event_id, event_type, wire.message(body), timestamp)

    def _decoded(self, question: EventQuestion) -> Iterator[Read]:
        """Give the matching events, in no order; RunFailure where they are too many to be decoded."""
        source = self._source(question, [])
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 {source.sql} LIMIT ?)", [*source.values, EVENTS_DECODED_MAX + 1]
        ).fetchone()
        if count > EVENTS_DECODED_MAX:
            raise too_many()
        return (read for read in self.rows(question) if read.matches)

    def rows(self, question: EventQuestion, limit: int = -1) -> Iterator[Read]:
        """Read the events of a question, those too that do not match its `where`; what stands in bodies is decoded.

        Of more than `limit`, any so many are read; below 0 is no limit.
        """
        source = self._source(question, [])
        matches = compiled(question.events.where).matches if question.events.where else None
        fields = [*question.group_by, *([question.field] if question.field else [])]
        columns = [Where("''") if details_path(field) else _column(field) for field in fields]
        body = "body" if question.needs_bodies else "x''"
        what = selection.joined([Where(f"timestamp, position, created_at, level, {body}"), *columns], ", ")
        paths = [(place, path) for place, field in enumerate(fields) if (path := details_path(field))]
        rows = self._connection.execute(
            f"SELECT {what.sql} {source.sql} LIMIT ?", [*what.values, *source.values, limit]
        )
        grouped = len(question.group_by)
        for timestamp, position, created_at, level, body, *values in rows:
            is_meant = matches is None or matches(body, level)
            if paths and is_meant:
                details = wire.details_of(body)
                for place, path in paths:
                    found = wire.value_at(details, path)
                    values[place] = group_text(found) if place < grouped else found
            value = values[grouped] if question.field else timestamp
            yield Read(timestamp, position, created_at, tuple(values[:grouped]), value, is_meant)

    def _source(self, question: EventQuestion, more: Sequence[Where]) -> Where:
        """Say which events are meant."""
        events = replace(question.events, account=self._account)
        plan = selection.plan(events)
        conditions = [plan.indexed, *([plan.residual] if plan.residual else []), self._own_events(events), *more]
        meant = selection.joined([*conditions, Where("created_at < ? AND deleted_at = 0", (question.created_before,))])
        return Where(f"FROM events INDEXED BY {plan.index} WHERE {meant.sql}", meant.values)

    def _own_events(self, events: EventFilter) -> Where:
        """Say which events of tocsin's own are meant: those that a `system.` pattern asks for, of others."""
        others = Where("service <> ?", (OWN_SERVICE,))
        types = tuple(pattern for pattern in events.types if sees_own_events(pattern))
        if not types:
            return others
        asked = selection.where(EventFilter(None, types=types))
        return Where(
            f"({others.sql} OR ({asked.sql} AND NOT (resource_type = ? AND resource_id = ?)))",
            (*others.values, *asked.values, RESOURCE_TYPE, self._alert_id),
        )


class ReadsApart:
    """What one alert reads, for code that is on no reader's thread: each read waits for one and gives it back."""

    def __init__(self, readers: Readers, account: str, alert_id: str) -> None:
        self._readers = readers
        self._account = account
        self._alert_id = alert_id
        self._used: sqlite3.Connection | None = None
        self._ended = False

    def aggregate(self, question: EventQuestion) -> list[Group]:
        """Answer the groups, those with most events first, equal ones by their values."""
        return self._read(lambda reads: reads.aggregate(question))

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Give the newest events of groups, at most `each` of one group."""
        return self._read(lambda reads: reads.samples(question, groups, each))

    def recorded_since(self) -> int | None:
        """Say since when what was appended is in the log as it stands."""
        return self._read(EventAggregates.recorded_since)

    def end(self) -> None:
        """Let nothing more be read: what is under way fails."""
        self._ended = True
        used = self._used
        if used is not None:
            used.interrupt()

    def _read(self, ask: Callable[[EventAggregates], T]) -> T:
        def on_thread(connection: sqlite3.Connection) -> T:
            self._used = connection
            try:
                if self._ended:
                    raise RuntimeError("the run has ended")
                return ask(EventAggregates(connection, self._account, self._alert_id))
            finally:
                self._used = None

        return self._readers.submit(on_thread).result()


def _column(field: str) -> Where:
    """Say a field that the row has; a question was made of fields that there are, so no word of it is unknown."""
    return Where(LABEL.sql, (field.removeprefix(LABELS),)) if field.startswith(LABELS) else Where(field)


def _value(question: EventQuestion) -> Where:
    assert question.aggregation not in NUMERIC, "numbers stand in details alone"
    if question.aggregation == "distinct":
        field = _column(question.field)
        return Where(f"count(DISTINCT {field.sql})", field.values)
    return Where("max(timestamp)" if question.aggregation == "latest" else "NULL")
