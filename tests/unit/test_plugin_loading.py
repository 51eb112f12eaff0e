"""Loading plug-ins: what is there is registered, what cannot be used is named and disturbs nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tocsin_server.alert_types import discover
from tocsin_server.api.languages import accepted
from tocsin_server.domain.alerting import ActionGroup, ActionVariable, ActionVariables, AlertType, AlertTypes, Names
from tocsin_server.domain.translations import named
from tocsin_server.plugins import AlertTypeSpec
from tocsin_server.plugins.loading import with_plugins

from tests.support.alert_house import scripted_type
from tests.support.plugin_packages import install, points_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def loaded(site: Path) -> AlertTypes:
    return with_plugins(discover(), points_of(site))


def failures(types: AlertTypes) -> dict[str, str]:
    return {f"{one.distribution}/{one.entry_point}": one.error for one in types.failed}


def ids(types: AlertTypes) -> list[str]:
    return [one.id for one in types if not one.id.startswith(".")]


def test_a_spec_a_list_and_a_function(site: Path) -> None:
    """KC3, KR9, KR10: an entry point is a type, several, or a function that gives them."""
    install(site, "One-Of_Them", "TYPE = spec('one')")
    install(site, "many", "TYPE = [spec('many.a'), spec('many.b', producer='shop')]")
    install(site, "made", "def TYPE():\n    return spec('made.here')")
    types = loaded(site)
    assert failures(types) == {}
    assert ids(types) == ["made.here", "many.a", "many.b", "one"]
    assert [t.producer for t in types if not t.id.startswith(".")] == ["made", "many", "shop", "one-of-them"]


def test_what_is_built_in_is_there_with_and_without_plugins(site: Path) -> None:
    """KR2: what begins with a dot comes with the server."""
    built_in = [".event-absence", ".event-spike", ".event-threshold"]
    assert [one.id for one in loaded(site)] == built_in


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("TYPE = 5 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def TYPE():\n    raise RuntimeError('no ' + 'x' * 900)", "RuntimeError: no " + "x" * 483),
        ("TYPE = 5", "TypeError: 'int' object is not iterable"),
        ("TYPE = []", "ValueError: bad:TYPE gives no AlertTypeSpec"),
        ("TYPE = ['bad.one']", "ValueError: bad:TYPE gives no AlertTypeSpec"),
        ("OTHER = 1", "AttributeError: module 'bad' has no attribute 'TYPE'"),
        ("TYPE = spec('a b')", "ValueError: alert type id 'a b' has characters outside a-z A-Z 0-9 _ - ."),
        (
            "TYPE = spec('.mine')",
            "ValueError: alert type '.mine' begins with a dot, as only those that come with the server do",
        ),
        (
            "TYPE = spec('bad.one', producer='tocsin')",
            "ValueError: alert type 'bad.one' names the producer 'tocsin', which is the server",
        ),
        (
            "TYPE = spec('bad.one', recovery_action_group=plugins.ActionGroup('default', 'D'))",
            "ValueError: alert type 'bad.one' lists its recovery group among its action groups",
        ),
        (
            "TYPE = spec('bad.one', params_schema={'type': 7})",
            "SchemaError: 7 is not valid under any of the given schemas",
        ),
        ("TYPE = [spec('bad.one'), spec('bad.one')]", "ValueError: alert type 'bad.one' is already registered by bad"),
    ],
)
def test_what_cannot_be_used_disturbs_nothing_else(site: Path, source: str, error: str) -> None:
    """KR1, KR2, KR6: the fault is named, the others are there."""
    install(site, "bad", source)
    install(site, "good", "TYPE = spec('good.one')")
    types = loaded(site)
    assert failures(types)["bad/one"].splitlines()[0] == error
    assert ids(types) == ["good.one"]
    assert types.find(".event-threshold") is not None


def test_of_two_of_the_same_id_the_first_by_name_stays(site: Path) -> None:
    """KR1: whatever the order of installation."""
    install(site, "zeta", "TYPE = spec('shared', producer='z')")
    install(site, "alpha", "TYPE = spec('shared', producer='a')")
    types = loaded(site)
    assert [one.producer for one in types if one.id == "shared"] == ["a"]
    assert failures(types) == {"zeta/one": "ValueError: alert type 'shared' is already registered by alpha"}


def test_one_bad_entry_point_leaves_the_others_of_its_distribution(site: Path) -> None:
    install(site, "mixed", "A = spec('mixed.a')\nB = 1", {"a": "A", "b": "B"})
    types = loaded(site)
    assert ids(types) == ["mixed.a"]
    assert list(failures(types)) == ["mixed/b"]


def test_a_type_without_a_schema_takes_any_params() -> None:
    """KR5, KR7, KR8: an unknown schema accepts everything; the first group is the default."""
    from tocsin_server.domain.alert_checks import params_violations
    from tocsin_server.plugins.running import PluginThreads

    groups = (ActionGroup("b", "B"), ActionGroup("a", "A"))
    spec = AlertTypeSpec(id="x", name="X", executor=lambda options: None, action_groups=groups)
    made = spec.alert_type("dist", PluginThreads())
    assert made.default_action_group_id == "b"
    assert made.recovery_action_group == ActionGroup("recovered", "Recovered")
    assert params_violations(made, {"any": ["thing"]}, "params") == []
    with pytest.raises(ValueError, match="has no action groups"):
        AlertTypeSpec("x", "X", lambda options: None, ()).alert_type("dist", PluginThreads())


def test_types_are_switched_off_by_id() -> None:
    """KC9."""
    types = AlertTypes(discover()).switched_off([".event-spike", "nobodys"])
    assert [one.id for one in types if not one.enabled] == [".event-spike"]


GERMAN = Names("Speicher", {"default": "Voll", "recovered": "Frei"}, {"context.disk": "die Platte"})


def translated() -> AlertType:
    return scripted_type(
        lambda context: None,  # type: ignore[arg-type,return-value]
        name="Disk",
        action_variables=ActionVariables(context=(ActionVariable("disk", "the disk"), ActionVariable("free", "bytes"))),
        translations={"de": GERMAN, "pt-BR": Names("Disco")},
    )


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", "Disk"),
        ("fr", "Disk"),
        ("de", "Speicher"),
        ("DE-at", "Speicher"),
        ("pt-br", "Disco"),
        ("pt", "Disk"),
        ("fr, de;q=0.5", "Speicher"),
        ("de;q=0.4, pt-BR;q=0.5", "Disco"),
        ("de;q=0, fr", "Disk"),
        ("de;q=2, x y, ;;, *", "Disk"),
        ("de," * 400, "Disk"),
    ],
)
def test_names_are_chosen_by_language(header: str, name: str) -> None:
    """KR3, KR11: the best that there is, without region if need be; what is malformed is passed over."""
    assert named(translated(), accepted(header)).name == name


def test_what_is_not_translated_keeps_its_name() -> None:
    """KR11."""
    german = named(translated(), ["de"])
    assert [group.name for group in (*german.action_groups, german.recovery_action_group)] == ["Voll", "Frei"]
    assert [v.description for v in german.action_variables.context] == ["die Platte", "bytes"]
