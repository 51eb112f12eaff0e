"""What the package says about itself is so."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tocsin
import tocsin.v1

CLIENT = Path(tocsin.__file__).parent


def imported_for_type_checkers() -> dict[str, str]:
    """Read the imports that only type checkers follow: names, and the modules that they come from."""
    tree = ast.parse((CLIENT / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def loaded_by(code: str) -> set[str]:
    """Answer the modules that a fresh interpreter has after this code."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_all_is_what_can_be_imported() -> None:
    assert sorted(tocsin.__all__) == sorted(imported_for_type_checkers())
    assert len(set(tocsin.__all__)) == len(tocsin.__all__)
    assert set(tocsin.__all__) <= set(dir(tocsin))


def test_every_name_is_what_type_checkers_take_it_for() -> None:
    for name, module in imported_for_type_checkers().items():
        assert getattr(tocsin, name) is getattr(import_module(module), name)


def test_every_module_can_be_named_after_the_import_alone() -> None:
    for package in (tocsin, tocsin.v1):
        folder = Path(package.__file__ or "").parent
        for path in folder.iterdir():
            name = path.stem
            if name not in ("__init__", "__pycache__", "cli", "py") and path.suffix in ("", ".py"):
                assert inspect.ismodule(getattr(package, name)), name
                assert name in dir(package)


@pytest.mark.parametrize("package", [tocsin, tocsin.v1])
def test_a_name_that_is_not_there_is_refused_as_by_any_module(package: object) -> None:
    assert not hasattr(package, "nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_import_alone_loads_nothing_that_calls() -> None:
    loaded = loaded_by("import tocsin")
    assert not loaded & {"grpc", "google.protobuf", "tocsin.client", "tocsin.aio", "asyncio"}
    assert "grpc" not in loaded_by("import tocsin; tocsin.verify_webhook, tocsin.new_webhook_secret")


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
