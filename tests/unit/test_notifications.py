"""Small rules around configurations and deliveries; what follows from an attempt is in test_settlement.py."""

from __future__ import annotations

from tocsin_server.domain.notifications import kept, masked, renewed
from tocsin_server.domain.selection import Selector


def test_secrets_show_their_end_only_when_long_and_are_kept_when_written_back() -> None:
    assert masked("") == ""
    assert masked("short") == "****"
    assert masked("0123456789abcdef") == "****cdef"
    assert kept("****cdef", "0123456789abcdef") == "0123456789abcdef"
    assert kept("****other", "0123456789abcdef") == "****other"
    assert kept("", "old") == ""


def test_a_new_selector_begins_at_the_head_and_an_old_one_keeps_its_place() -> None:
    old = Selector("account", "*", "a.*", "*", after_position=5)
    new = Selector("account", "*", "b.*", "*")
    assert [s.after_position for s in renewed([old], [new, old], 9)] == [9, 5]
