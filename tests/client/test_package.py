"""What the package says about itself is so."""

from __future__ import annotations

import inspect
from pathlib import Path

import tocsin

CLIENT = Path(tocsin.__file__).parent


def test_all_is_what_can_be_imported() -> None:
    public = {name for name, value in vars(tocsin).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert sorted(tocsin.__all__) == sorted(public)
    assert len(set(tocsin.__all__)) == len(tocsin.__all__)


def test_every_error_is_exported() -> None:
    errors = {
        name
        for name, value in vars(tocsin.errors).items()
        if inspect.isclass(value) and issubclass(value, tocsin.TocsinError)
    }
    assert errors <= set(tocsin.__all__)


def test_both_clients_offer_the_same() -> None:
    def offers(kind: type[object]) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert offers(tocsin.Client) == offers(tocsin.AsyncClient)
    assert offers(tocsin.Subscription) == offers(tocsin.AsyncSubscription)
    for kind in (tocsin.Client, tocsin.AsyncClient):
        assert all(inspect.getdoc(getattr(kind, name)) for name in offers(kind))


def test_the_package_is_typed() -> None:
    assert (CLIENT / "py.typed").exists()
