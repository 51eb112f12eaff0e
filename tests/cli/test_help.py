"""What the command line says about itself, and how it complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from tocsin.cli import app
from tocsin.cli.app import hoisted
from tocsin.cli.parts import PARTS

from tests.cli.conftest import Cli

LEAP_SECOND = "2016-12-31T23:59:60Z"
EVENT_COMMANDS = {
    "delete": "Delete an event by its ID or set of filters",
    "get": "Lookup an event by its event ID",
    "list": "Returns a paginated list of events in the descending order of their occurrence",
}


def words(text: str) -> str:
    return " ".join(text.split())


def commands(group: object = None, *above: str) -> list[list[str]]:
    """Give every command, as words, however deep it stands."""
    found: list[list[str]] = []
    for name, one in getattr(group or app.command(), "commands", {}).items():
        found += commands(one, *above, name) if hasattr(one, "commands") else [[*above, name]]
    return found


def test_commands_are_found_at_every_level() -> None:
    assert {("completion",), ("event", "list"), ("alert", "run"), ("endpoint", "configuration", "create")} <= set(
        map(tuple, commands())
    )


@pytest.mark.parametrize("name", PARTS)
def test_the_root_says_of_a_command_what_it_says_itself(name: str) -> None:
    """The texts at the root are kept apart from the commands, which it does not load."""
    assert PARTS[name].help.rstrip(".") == words(app.command().commands[name].help).partition(". ")[0].rstrip(".")


@pytest.mark.parametrize("given", [[], *([name] for name in PARTS)], ids=" ".join)
def test_help_does_not_load_what_calls(given: list[str]) -> None:
    code = (
        "import json, sys; from tocsin.cli.app import run; code = run(sys.argv[1:])\n"
        "print(json.dumps([code, *sys.modules]), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code, *given, "--help"], capture_output=True, text=True, check=True)
    status, *loaded = json.loads(found.stderr)
    assert status == 0
    assert "grpc" not in loaded
    assert given or not [name for name in loaded if name.startswith(("google.", "tocsin.v1", "yaml"))]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_group_and_its_commands_have_the_texts_of_the_source(cli: Cli, flag: str) -> None:
    """B05, B06, B07."""
    group = cli("event", flag)
    assert group.code == 0
    assert "Event related operations" in group.out
    for name, text in EVENT_COMMANDS.items():
        assert re.search(rf"^  {name} +{text[:20]}", group.out, re.M)
        one = cli("event", name, flag)
        assert one.code == 0
        assert text in words(one.out)
        assert "For help regarding global flags, run --help on the root command" in words(one.out)


@pytest.mark.parametrize("command", [[], *commands()], ids=" ".join)
def test_every_flag_shows_its_variable(command: list[str]) -> None:
    """B23."""
    found = app.command()
    for name in command:
        found = getattr(found, "commands")[name]  # noqa: B009 - groups and commands are of different types
    for parameter in found.params:
        if parameter.param_type_name == "option" and parameter.name not in ("help", "show_version"):
            assert str(parameter.envvar).startswith("TOCSIN_"), parameter.name


COUNTED = (  # have no ids to print
    ["event", "summary"],
    ["endpoint", "test"],
    ["endpoint", "configuration", "test"],
    ["delivery", "recover"],
    ["delivery", "stats"],
    ["alert", "run"],
    ["alert", "executions"],
    ["alert", "preview"],
)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_help_names_the_formats_that_a_command_has(command: list[str], cli: Cli) -> None:
    """B22."""
    shown = words(cli(*command, "--help").out)
    named = re.search(r"allowable: \[([a-z -]+)\]", shown)
    expected = ["text", "json", "json-raw"] if command in COUNTED else ["text", "json", "json-raw", "id"]
    assert named is None or named[1].split() == expected


def test_a_format_by_variable_is_for_the_commands_that_have_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """B22, B23: text elsewhere, and a word that is no format is refused everywhere."""
    monkeypatch.setenv("TOCSIN_FORMAT", "id")
    assert cli("event", "summary").lines == ["0 events"]
    monkeypatch.setenv("TOCSIN_FORMAT", "xml")
    assert cli("event", "summary").code == 2


def test_global_flags_are_documented_at_the_root(cli: Cli) -> None:
    """B23, D17."""
    found = cli("--help")
    for flag in ("ADDRESS", "API_KEY", "ACCOUNT", "TIMEOUT", "TLS_ROOTS", "X_REQUEST_ID", "X_CORRELATION_ID"):
        assert f"--{flag.lower().replace('_', '-')} " in found.out
        assert re.search(rf"env\s+var:\s+TOCSIN_{flag}\b", found.out)
    assert "Exit codes: 0 done, 1 failed" in words(found.out)
    assert cli().out == found.out


def test_the_version(cli: Cli) -> None:
    assert cli("--version").out == f"tocsin {version('tocsin')}\n"


def test_the_command_is_installed() -> None:
    found = subprocess.run([f"{sys.prefix}/bin/tocsin", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("tocsin ")


@pytest.mark.parametrize("library", ["typer", "rich.cells", "yaml"])
def test_without_the_extra_it_says_what_to_install(library: str) -> None:
    """Also where a library is needed by some commands only."""
    code = f"import sys; sys.modules['{library}'] = None; from tocsin.cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code, "event", "list"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr == f"tocsin: the command line needs {library}: pip install 'tocsin[cli]'\n"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["frob"], 2, "No such command 'frob'"),
        (["event", "list", "--frob"], 2, "No such option: --frob"),
        (["event", "get"], 2, "Missing argument 'ID'"),
        (["event", "list", "--level", "warn"], 2, "--level: 'warn' is no level: give INFO or ERROR"),
        (["event", "list", "--since", "noon"], 2, "--since: 'noon' is no time: give 2022"),
        (["event", "list", "--since", LEAP_SECOND], 2, f"--since: '{LEAP_SECOND}' is a leap second"),
        (["event", "append", "a", "--timestamp", LEAP_SECOND], 2, f"--timestamp: '{LEAP_SECOND}' is a leap second"),
        (["event", "list", "--label", "x"], 2, "--label: 'x' is no pair: give KEY=VALUE"),
        (["event", "list", "--where", "event.frob"], 2, "INVALID_FIELD: filter.where: line 1"),
        (["event", "summary", "--bucket-width", "0s"], 2, "--bucket-width: a stretch of no time"),
        (["event", "get", "nobody"], 3, "NOT_FOUND: event 'nobody' does not exist"),
        (["event", "get", "no body"], 2, "INVALID_FIELD: id"),
        (
            ["--address", "127.0.0.1:1", "--timeout", "0.3", "event", "list"],
            4,
            "no server answers at 127.0.0.1:1 (connection refused); is the",
        ),
        (["event", "list", "--page", "0"], 2, '--page: give 1 or more. See "tocsin event list --help".'),
        (["event", "list", "--page", "x"], 2, "--page: give a whole number. See"),
        (["completion", "tcsh"], 2, "SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'. See"),
        (["event", "get", "a", "b"], 2, "Got unexpected extra argument(s) (b). See"),
        (["--timeout", "soon", "event", "list"], 2, "--timeout: give a number. See"),
        (["--tls-roots", "/nowhere", "event", "list"], 2, "TLS: /nowhere: No such file"),
        (["--address", "db:1", "--no-tls", "--api-key", "k", "event", "list"], 2, "--api-key: an API key is not sent"),
    ],
)
def test_a_complaint_is_one_line(cli: Cli, given: list[str], code: int, said: str) -> None:
    """XB21, among others: a leap second is refused, and it is said what it is."""
    found = cli(*given)
    (line,) = [line for line in found.err.splitlines() if not line.startswith("✘")]
    assert (found.code, found.out) == (code, "")
    assert line.startswith("tocsin: ")
    assert said in line


def test_who_stops_reading_hears_no_complaint(cli: Cli) -> None:
    process = cli.start("event", "--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


def test_global_flags_are_found_anywhere() -> None:
    options = {"--account": True, "--tls": False, "-q": False}
    assert hoisted(["event", "list", "--account", "a", "-q"], options) == ["--account", "a", "-q", "event", "list"]
    assert hoisted(["event", "--account=a", "x"], options) == ["--account=a", "event", "x"]
    assert hoisted(["event", "--", "--tls"], options) == ["event", "--", "--tls"]
    assert hoisted(["event", "--account"], options) == ["--account", "event"]
    assert "--address" in app._option_names()


COMPLETE = {
    "bash": """eval "$("$TOCSIN" completion bash)"
        COMP_WORDS=(tocsin event l) COMP_CWORD=2; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin event list -o json-) COMP_CWORD=4; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin delivery list --state ex) COMP_CWORD=4; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin endpoint configuration e) COMP_CWORD=3; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin alert unm) COMP_CWORD=2; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin alert list --status of) COMP_CWORD=4; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}"
        COMP_WORDS=(tocsin lis) COMP_CWORD=1; _tocsin_completion "$TOCSIN"; echo "${COMPREPLY[@]}" """,
    "zsh": """autoload -U compinit; compinit -u -D; eval "$("$TOCSIN" completion zsh)"; whence -w _tocsin_completion""",
    "fish": """"$TOCSIN" completion fish | source; set PATH (dirname "$TOCSIN") $PATH; complete -C "tocsin event l" """,
}
SHOWN = {"bash": "list\njson-raw\nexhausted\nenable\nunmute\noff\nlisten\n", "zsh": "function", "fish": "list"}


@pytest.mark.parametrize("shell", COMPLETE)
def test_a_completion_script_is_printed(cli: Cli, shell: str) -> None:
    found = cli("completion", shell)
    assert found.code == 0
    assert "_TOCSIN_COMPLETE=complete_" + shell in found.out


@pytest.mark.parametrize("shell", COMPLETE)
def test_a_completion_script_loads(cli: Cli, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not there")
    environment = {**cli.environment, "TOCSIN": f"{sys.prefix}/bin/tocsin"}
    found = subprocess.run([shell, "-c", COMPLETE[shell]], capture_output=True, text=True, env=environment, check=True)
    assert SHOWN[shell] in found.stdout
    assert found.stderr == ""


def test_an_unknown_shell_is_refused(cli: Cli) -> None:
    assert cli("completion", "tcsh").code == 2
