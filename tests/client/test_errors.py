"""Every reason has a class; what is not understood keeps the class of its code."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from tocsin import errors
from tocsin.failures import from_rpc
from tocsin.v1.annotations_pb2 import ErrorReason

from tests.client.scripted import status, trailers

REASONS = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]


class Failed(grpc.RpcError):
    """What gRPC raises, as far as it is read."""

    def __init__(self, code: grpc.StatusCode, found: object = ()) -> None:
        super().__init__()
        self._code = code
        self._trailers = found

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "it went wrong"

    def trailing_metadata(self) -> Any:
        return self._trailers


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_its_class(reason: str) -> None:
    kind = errors.BY_REASON[reason]
    error = from_rpc(Failed(grpc.StatusCode.UNKNOWN, trailers(status(reason))))
    assert type(error) is kind
    assert error.reason == reason


@pytest.mark.parametrize("reason", REASONS)
def test_a_class_stands_under_the_class_of_its_code(reason: str) -> None:
    (comment,) = re.findall(rf"// ([A-Z_]+): .*\n(?:  //.*\n)*  ERROR_REASON_{reason} =", _annotations())
    assert issubclass(errors.BY_REASON[reason], errors.BY_CODE[grpc.StatusCode[comment]])


def _annotations() -> str:
    with open("protos/tocsin/v1/annotations.proto", encoding="utf-8") as source:
        return source.read()


def test_no_class_is_for_a_reason_that_does_not_exist() -> None:
    assert set(errors.BY_REASON) == set(REASONS)


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")

    def names(root: type[object]) -> list[str]:
        return [name for child in root.__subclasses__() for name in [child.__name__, *names(child)]]

    assert sorted(drawn) == sorted(names(errors.TocsinError))


def test_details_are_read() -> None:
    found = status("INVALID_FIELD", metadata={"a": "b"}, fields={"event.type": "too long"}, retry_after_s=1.5)
    error = from_rpc(Failed(grpc.StatusCode.INVALID_ARGUMENT, trailers(found)))
    assert isinstance(error, errors.InvalidField)
    assert error.violations == (errors.Violation("event.type", "too long"),)
    assert error.metadata == {"a": "b"}
    assert error.retry_after_s == 1.5
    assert str(error) == "INVALID_ARGUMENT INVALID_FIELD: it went wrong (event.type: too long)"


def test_a_text_says_each_thing_once() -> None:
    fields = tuple(errors.Violation(name, "too long") for name in ("a", "b"))
    told = "a: too long (and 1 more)"
    error = errors.InvalidField(told, code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_FIELD", violations=fields)
    assert str(error) == f"INVALID_ARGUMENT INVALID_FIELD: {told} (b: too long)"
    absent = errors.NotFound("event 'x' does not exist", code=grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND")
    assert str(absent) == "NOT_FOUND: event 'x' does not exist"


def test_a_reason_of_a_newer_server_falls_back_to_the_code() -> None:
    error = from_rpc(Failed(grpc.StatusCode.OUT_OF_RANGE, trailers(status("POSITION_OF_TOMORROW"))))
    assert type(error) is errors.OutOfRange
    assert error.reason == "POSITION_OF_TOMORROW"


def test_a_reason_of_somebody_else_is_not_ours() -> None:
    found = trailers(status("NOT_FOUND", domain="proxy.example"))
    error = from_rpc(Failed(grpc.StatusCode.UNAVAILABLE, found))
    assert type(error) is errors.Unavailable
    assert error.reason == ""


@pytest.mark.parametrize("found", [None, (), (("grpc-status-details-bin", b"\xff\xff\xff"),)])
def test_an_error_without_readable_details(found: object) -> None:
    error = from_rpc(Failed(grpc.StatusCode.NOT_FOUND, found))
    assert type(error) is errors.NotFound
    assert (error.code, error.reason, error.violations) == (grpc.StatusCode.NOT_FOUND, "", ())


def test_a_code_without_a_class() -> None:
    assert type(from_rpc(Failed(grpc.StatusCode.UNKNOWN))) is errors.TocsinError
