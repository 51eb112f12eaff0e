"""A list of events in columns: wide, short, or shorter still where the terminal is narrow. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tocsin.cli.escaping import escaped
from tocsin.cli.rendering import level_text, short_time_text, time_text
from tocsin.cli.tables import ASCII, BOX, Form, Line, Sheet, Table
from tocsin.v1.event_log_pb2 import LEVEL_ERROR, Event

WIDE = ("UUID", "EVENT TYPE", "LEVEL", "RESOURCE ID", "RESOURCE TYPE", "SOURCE SERVICE", "SOURCE HOST", "TIMESTAMP")
_WIDE_LEVEL = 2
_WIDE_CUTTABLE = dict.fromkeys((1, 3, 4, 5, 6), 1)  # where a later ID is longer than those that set the form

# The time stands there twice, to the microsecond and to the second; a form takes one of them.
SHORT = ("Timestamp", "Timestamp", "Level", "Service", "Host", "Event", "ID")
_FINE, _COARSE, _LEVEL, _SERVICE, _HOST, _EVENT, _ID = range(len(SHORT))
_SHORT_CUTTABLE = {_SERVICE: 8, _HOST: 8, _EVENT: 16}
# The id is copied from here, so that it stays whole; what says least goes first.
_SHORT_FORMS: tuple[Form, ...] = (
    ((_FINE, _LEVEL, _SERVICE, _HOST, _EVENT, _ID),),
    ((_COARSE, _LEVEL, _SERVICE, _HOST, _EVENT, _ID),),
    ((_COARSE, _LEVEL, _SERVICE, _EVENT, _ID),),
    ((_COARSE, _LEVEL, _EVENT, _ID),),
    ((_COARSE, _LEVEL, _EVENT), (_ID,)),
    ((_LEVEL, _EVENT), (_ID,)),
)


def wide_cells(event: Event) -> list[str]:
    """Answer the columns of `WIDE`."""
    found = [
        event.id,
        event.type,
        level_text(event),
        event.resource.id,
        event.resource.type,
        event.source.service,
        event.source.host,
        time_text(event.timestamp),
    ]
    return [escaped(cell) for cell in found]


def short_cells(event: Event) -> list[str]:
    """Answer the columns of `SHORT`."""
    found = [
        time_text(event.timestamp),
        short_time_text(event.timestamp),
        level_text(event).upper(),
        event.source.service,
        event.source.host,
        event.type,
        event.id,
    ]
    return [escaped(cell) for cell in found]


class EventTable:
    """A list of events: the wide form, or the short one where it was asked for or nothing else fits."""

    def __init__(self, first: Sequence[Event], width: int | None, compact: bool, draws: bool = True) -> None:
        """Settle the form and the widths by the first rows; `width` is that of the terminal, if it is one."""
        self._width = width
        self._wide = Table.fit(WIDE, [wide_cells(event) for event in first], BOX if draws else ASCII)
        self._natural = self._wide
        self.is_wide = not compact and (width is None or self._wide.width <= width)
        self._short = Sheet(SHORT, _SHORT_FORMS, _SHORT_CUTTABLE, width)
        self._short.take([short_cells(event) for event in first])

    def grow(self, events: Sequence[Event]) -> None:
        """Make room for later rows: wider columns, or where the terminal ends another form."""
        if not self.is_wide:
            self._short.take([short_cells(event) for event in events])
            return
        more = Table.fit(WIDE, [wide_cells(event) for event in events], self._wide.frame)
        widths = [max(pair) for pair in zip(self._natural.widths, more.widths, strict=True)]
        self._natural = Table(WIDE, widths, self._wide.frame)
        self._wide = self._natural if self._width is None else self._natural.narrowed(self._width, _WIDE_CUTTABLE)

    def head(self) -> list[str]:
        """Answer the lines above the rows."""
        return self._wide.head() if self.is_wide else self._short.head()

    def foot(self) -> list[str]:
        """Answer the lines below the rows."""
        return self._wide.foot() if self.is_wide else []

    def lines(self, event: Event) -> list[Line]:
        """Answer the lines of an event; the level of an error is coloured."""
        texts = [self._wide.line(wide_cells(event))] if self.is_wide else self._short.lines(short_cells(event))
        start = self._wide.starts(_WIDE_LEVEL) if self.is_wide else self._short.starts(_LEVEL)
        coloured = event.level == LEVEL_ERROR and start is not None
        spans = ((start, start + len("error"), "red"),) if coloured and start is not None else ()
        return [Line(texts[0], spans), *(Line(text) for text in texts[1:])]
