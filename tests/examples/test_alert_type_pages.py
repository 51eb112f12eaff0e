"""docs/alert-types: a page for every built-in type, with an example that the server takes; and one for plug-ins."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from tocsin.v1 import alerting_pb2 as pb
from tocsin_server import plugins
from tocsin_server.alert_types import discover
from tocsin_server.domain.alerting import AlertType

from tests.examples.test_readme import ROOT
from tests.support.alerts import webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api

PAGES = ROOT / "docs" / "alert-types"
TYPES = discover()


def page_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("alert_type", TYPES, ids=lambda alert_type: alert_type.id)
async def test_a_page_says_what_a_type_takes(api: Api, hook: WebhookReceiver, alert_type: AlertType) -> None:
    """KR3, KR7, KR8: each of its params in the table, all that templates can use; and its example can be created."""
    page = page_of(alert_type.id.removeprefix("."))
    assert [name for name in alert_type.params_schema["properties"] if f"| `{name}` |" not in page] == []
    declared = alert_type.action_variables
    names = {variable.name for variable in (*declared.context, *declared.state) if "group." not in variable.name}
    assert [name for name in sorted(names - {"no_data_since"}) if f"`{name}`" not in page] == []
    (example,) = re.findall(r"-d '(\{.*?\})' \\\n", page, re.DOTALL)
    request = pb.CreateAlertRequest()
    ParseDict(json.loads(example.replace("CONFIGURATION_ID", await webhook(api, hook.url))), request)
    created = (await api.alerting.CreateAlert(request)).alert
    assert created.alert_type_id == alert_type.id


def test_every_page_is_of_a_type() -> None:
    assert sorted(page.stem for page in PAGES.glob("*.md")) == sorted(
        [*(alert_type.id.removeprefix(".") for alert_type in TYPES), "plug-ins"]
    )


def test_the_page_of_plugins_names_all_that_there_is() -> None:
    """KE4-KE16, KR2-KR11: the words of an author, each in its table; and its example is a type."""
    page = page_of("plug-ins")
    spec = [f"| `{field.name}` |" for field in dataclasses.fields(plugins.AlertTypeSpec)]
    methods = [name for name in vars(plugins.AlertInstance) if not name.startswith("_") and name != "report"]
    assert [row for row in spec if row not in page] == []
    assert [name for name in methods if f"`{name}(" not in page] == []
    assert [field.name for field in dataclasses.fields(plugins.ExecutorOptions) if f"`{field.name}" not in page] == []
    example = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AlertTypeSpec" in code)
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "plug-ins.md", "exec"), module)
    made = module["TYPE"]
    assert isinstance(made, plugins.AlertTypeSpec)
    assert [group.id for group in made.action_groups] == ["default", "warning"]
