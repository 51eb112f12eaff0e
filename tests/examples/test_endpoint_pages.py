"""docs/endpoints: a page for every kind of endpoint, with an example that the server takes."""

from __future__ import annotations

import json
import re

import pytest
from google.protobuf.json_format import ParseDict
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.endpoints import discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor

from tests.examples.test_readme import ROOT
from tests.support.servers import Api

KINDS = discover(HttpDoor(Egress([])))
PAGES = ROOT / "docs" / "endpoints"
SET_BY_THE_SERVER = {"previous_secret", "previous_secret_expire_time"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_says_what_a_kind_needs(api: Api, kind: str) -> None:
    """A28: every field of its connection is named, those that are required in the table, and its example works."""
    page = (PAGES / f"{kind}.md").read_text(encoding="utf-8")
    connection = pb.EndpointConfiguration.DESCRIPTOR.fields_by_name[kind].message_type
    assert connection is not None
    assert [f.name for f in connection.fields if f.name not in SET_BY_THE_SERVER and f"`{f.name}`" not in page] == []
    assert [name for name in KINDS[kind].required_fields if f"| `{name}` |" not in page] == []
    (example,) = re.findall(r"-d '(\{.*?\})' \\", page, re.DOTALL)
    request = pb.CreateEndpointConfigurationRequest()
    ParseDict(json.loads(example), request)
    answer = await api.notifications.CreateEndpointConfiguration(request)
    assert answer.configuration.kind == kind


def test_every_page_is_of_a_kind() -> None:
    assert sorted(page.stem for page in PAGES.glob("*.md")) == sorted(KINDS)
