"""Pages end by bytes as well as by count."""

from __future__ import annotations

from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.api.paging import fitting, page_size
from tocsin_server.domain.event_log import PAGE_BYTES_MAX


def test_a_page_takes_what_fits_and_at_least_one() -> None:
    large = pb.EndpointConfiguration(description="x" * (PAGE_BYTES_MAX // 2 - 100))
    assert len(fitting([large] * 5)) == 2
    assert len(fitting([pb.EndpointConfiguration(description="x" * PAGE_BYTES_MAX)] * 2)) == 1
    assert fitting([]) == []


def test_a_page_size_of_0_is_the_default_and_too_many_are_the_most() -> None:
    assert [page_size(asked) for asked in (0, 1, 1000, 10**9)] == [100, 1, 1000, 1000]
