"""Lanes that two threads use: the dispatch thread, and the store's, which routes what is appended.

`domain/lanes.py` knows no threads. What changes a lane holds a lock here; the lock is held for a few dictionary
steps and never while anything is awaited. To look at a lane needs none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Concatenate, ParamSpec, TypeVar

from tocsin_server.domain.lanes import Lanes

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Lanes, P], T]


def _locked(method: Method[P, T]) -> Callable[Concatenate[SharedLanes, P], T]:
    def held(self: SharedLanes, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    held.__doc__ = method.__doc__
    return held


class SharedLanes(Lanes):
    """See the module's docstring."""

    def __init__(self, without_stock: Collection[str] = ()) -> None:
        super().__init__(without_stock=without_stock)
        self.lock = threading.RLock()

    configure = _locked(Lanes.configure)
    wait = _locked(Lanes.wait)
    paused = _locked(Lanes.paused)
    take = _locked(Lanes.take)
    proceed = _locked(Lanes.proceed)
    late = _locked(Lanes.late)
    give_back = _locked(Lanes.give_back)
    choose = _locked(Lanes.choose)
    claimed = _locked(Lanes.claimed)
    ended = _locked(Lanes.ended)
    note = _locked(Lanes.note)
