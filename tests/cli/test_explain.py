"""`tocsin explain`: who is told about an event and why, as a tree."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import tocsin
from google.protobuf import json_format
from rich.cells import cell_len
from tocsin.cli.explanation import outline_of
from tocsin.cli.outline import DRAWN, PLAIN, Node, lines
from tocsin.v1 import notifications_pb2 as pb

from tests.cli.answering import answering
from tests.cli.conftest import Cli
from tests.cli.terminal import shown

SECRET = tocsin.new_webhook_secret()
ERRORS = tocsin.selector("user.*", level="error")


def told(cli: Cli, *selectors: pb.Selector, url: str = "http://127.0.0.1:1/") -> str:
    return cli.client.create_configuration(tocsin.webhook("ops", url, SECRET, selectors)).id


def test_a_stored_event_is_explained_to_the_end(cli: Cli) -> None:
    """A04, A05, A36: what each selector misses, the switch, silences, the health, and what became of it."""
    with answering() as hook:
        id = told(cli, ERRORS, tocsin.selector("feed*", resource_type="feeds"), url=hook.url)
        cli.client.append("user.image.lost", id="e1", level="error", resource={"type": "image_tag", "id": "nginx"})
        delivery = cli.client.wait_for_delivery(event_id="e1")
    found = cli("explain", "e1")
    assert found.err == "✔ Explained event\n"
    position = cli.client.get_event("e1").position
    assert found.lines == [
        f"user.image.lost  ERROR  image_tag nginx  e1 at position {position}",
        f"└─ SENT  ops (webhook {id}): told at once",
        "   ├─ selector level=error,type=user.*: matches",
        "   ├─ selector type=feed*,resource_type=feeds: does not match",
        "   │  ├─ type: wanted feed*, found user.image.lost",
        "   │  └─ resource_type: wanted feeds, found image_tag",
        "   ├─ switch: on",
        "   ├─ silence: none",
        "   ├─ health: HEALTHY",
        f"   └─ delivery {delivery.id}: DELIVERED  1 try  200",
    ]


def test_a_made_up_event_is_explained_by_flags_and_by_a_file(cli: Cli) -> None:
    id = told(cli, ERRORS)
    text = "{type: user.x, level: ERROR, source: {service: s}, details: {n: 1}}"
    for found in (
        cli("explain", "--type", "user.x", "--level", "error", "--service", "s", "--details", '{"n": 1}', "-o", "json"),
        cli(
            "explain",
            "-f",
            "-",
            "-o",
            "json",
            stdin=text,
        ),
    ):
        answer = json.loads(found.out)
        assert (answer["event"]["source"], answer["event"]["details"]) == ({"service": "s"}, {"n": 1})
        (one,) = answer["explanations"]
        assert (one["configuration_id"], one["fate"], one["selectors"][0]["matched"]) == (id, "sent", True)
    assert cli("explain", "--type", "user.x").lines[0] == "user.x  INFO  made up"
    assert list(cli.client.list_events()) == []


def test_the_ids_are_of_who_is_told(cli: Cli) -> None:
    id, other = told(cli, ERRORS), told(cli, tocsin.selector("feed*"))
    assert cli("explain", "--type", "user.x", "--level", "error", "-o", "id").out == f"{id}\n"
    assert cli("explain", "--type", "a.b", "-o", "id").out == ""
    one = cli("explain", "--type", "a.b", "--configuration", other, "-o", "json-raw")
    raw = json_format.Parse(one.out, pb.ExplainEventResponse())
    assert [found.configuration_id for found in raw.explanations] == [other]


def test_switches_and_silences_are_told(cli: Cli) -> None:
    id = told(cli, ERRORS)
    words = ("explain", "--type", "user.x", "--level", "error")
    silence = cli.client.create_silence(types=["user.x"], comment="x", duration=timedelta(hours=1))
    silenced = cli(*words).lines
    assert silenced[1] == f"└─ SILENCED  ops (webhook {id}): not told: a silence holds"
    assert f"   ├─ silence: {silence.id}" in silenced
    assert cli(*words, "-o", "id").out == ""
    cli.client.delete_silence(silence.id)
    cli.client.update_configuration(pb.EndpointConfiguration(id=id, enabled=False), ["enabled"])
    off = cli(*words).lines
    assert off[1].startswith(f"└─ PAUSED  ops (webhook {id}): held until its switch is on")
    assert "   ├─ switch: receiver off" in off


def test_nobody_is_told_where_there_are_no_receivers(cli: Cli) -> None:
    assert cli("explain", "--type", "a.b").lines == [
        "a.b  INFO  made up",
        "└─ nobody is told: there are no receivers",
    ]


def test_an_event_before_the_receiver_is_not_its_business(cli: Cli) -> None:
    cli.client.append("user.x", id="old", level="error")
    told(cli, ERRORS)
    older = "it is older than the selector, which chooses events after position"
    assert any(older in line for line in cli("explain", "old").lines)


@pytest.mark.parametrize("columns", [120, 80, 60])
def test_a_tree_fits_the_terminal(cli: Cli, columns: int) -> None:
    """IDs stay whole."""
    id = told(
        cli, ERRORS, tocsin.selector("user.*", where="event.details.exitcode > 1.0 && event.details.tries > 20.0")
    )
    lines = shown(cli, columns, "explain", "--type", "user.x", "--level", "error")
    assert sum(id in line for line in lines) == 1


def test_a_tree_is_folded_below_itself_and_can_be_plain() -> None:
    tree = Node("root", [Node("a " * 30 + "\x1b", [Node("leaf", style="red")]), Node("b")])
    drawn = list(lines(tree, 40, DRAWN))
    assert all(cell_len(line.text) <= 40 for line in drawn)
    assert [line.text[:6] for line in drawn] == ["root", "├─ a a", "│  │  ", "│  └─ ", "└─ b"]
    assert drawn[2].text.endswith("a \\x1b")
    (leaf,) = [line for line in drawn if line.spans]
    start, end, style = leaf.spans[0]
    assert (leaf.text[start:end], style) == ("leaf", "red")
    assert [line.text[:6] for line in lines(tree, 40, PLAIN)] == ["root", "|- a a", "|  |  ", "|  `- ", "`- b"]


def test_every_fate_and_reason_has_its_words() -> None:
    for fate in set(pb.EventFate.values()) - {pb.EVENT_FATE_UNSPECIFIED}:
        one = pb.EventExplanation(name="ops", kind="webhook", fate=fate, changed_since=True)
        tree = outline_of(pb.ExplainEventResponse(explanations=[one]), is_stored=True)
        assert not tree.below[0].text.endswith(": ")
        assert "was changed" in tree.below[0].below[-1].text
    one = pb.EventExplanation(fate=pb.EVENT_FATE_NOT_SELECTED, reason="ABOUT_ITSELF")
    tree = outline_of(pb.ExplainEventResponse(explanations=[one]), is_stored=True)
    assert "about this receiver itself" in tree.below[0].text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "EVENT: give the ID of a stored event, or --type or -f FILE"),
        (["e1", "--type", "a.b"], 2, "EVENT: a stored event does not go with"),
        (["--type", "a.b", "-f", "x"], 2, "--file: does not go with the flags"),
        (["-f", "/nowhere"], 2, "--file: /nowhere: No such file"),
        (["--type", "a.b", "--level", "warn"], 2, "level"),
        (["--type", "a.b", "--label", "x"], 2, "--label: 'x' is no pair"),
        (["nobody"], 3, "NOT_FOUND: event 'nobody' does not exist"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], code: int, said: str) -> None:
    found = cli("explain", *words)
    assert (found.code, found.out) == (code, "")
    assert said in found.err
