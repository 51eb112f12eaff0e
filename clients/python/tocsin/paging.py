"""Walking through lists page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_Response = TypeVar("_Response")


def pages(call: Callable[[Any], _Response], request: Any) -> Iterator[_Response]:
    """Walk all pages of a list, short and empty ones included. The request is used up."""
    while True:
        page: Any = call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
