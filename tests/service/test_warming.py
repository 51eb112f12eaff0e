"""What a start does not wait for is loaded behind it, and by whoever needs it sooner."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from tocsin_server.alert_types import discover
from tocsin_server.domain.alert_checks import check_schema
from tocsin_server.warming import LATER, Warming

HEAVY = ("jsonschema", "referencing", "cel_expr_python", "httpx", "aiohttp", "aiosmtplib", "cryptography")


def loaded_after(code: str) -> set[str]:
    """Answer the modules that a fresh interpreter has after this code."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_a_start_does_without_what_few_calls_need() -> None:
    """The modules that are imported until a server serves: neither at once nor by the discovery of kinds and types."""
    code = """
import tocsin_server.logs, tocsin_server.commands
from tocsin_server import alert_types, endpoints
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
alert_types.discover()
endpoints.discover(HttpDoor(Egress([])))
"""
    loaded = loaded_after(code)
    assert [name for name in HEAVY if name in loaded] == []
    assert [name for name in LATER if name in loaded] == []


def test_the_command_line_needs_the_server_for_serving_only() -> None:
    loaded = loaded_after("import tocsin_server.__main__")
    assert not loaded & {"tocsin_server.app", "grpc", "structlog", "peewee", "asyncio"}


def test_warming_loads_everything_and_then_ends() -> None:
    code = """
import asyncio
from tocsin_server.warming import LATER, Warming
warming = Warming()
warming.start()
warming._thread.join()
asyncio.run(warming.stop())
"""
    assert set(LATER) <= loaded_after(code)


async def test_warming_that_is_told_to_end_begins_no_other_module() -> None:
    warming = Warming(["tocsin_server.plugins.no_such_module"])
    warming._ending.set()
    warming.start()
    await warming.stop()


async def test_a_part_that_cannot_be_loaded_is_said_and_keeps_no_other_back(capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules.pop("colorsys", None)
    warming = Warming(["tocsin_server.no_such_module", "colorsys"])
    warming.start()
    await asyncio.to_thread(warming._thread.join)
    await warming.stop()
    assert "tocsin_server.no_such_module" in capsys.readouterr().err
    assert "colorsys" in sys.modules


def test_the_schemas_of_the_own_alert_types_are_schemas() -> None:
    """The server does not check them at every start."""
    for alert_type in discover():
        assert re.fullmatch(r"\.[a-z-]+", alert_type.id)
        check_schema(alert_type.params_schema)
