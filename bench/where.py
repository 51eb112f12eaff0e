"""Which CEL library serves `where`: compile time, time per event, types, errors, hostile expressions.

    python -m bench.where

Measures the libraries that are installed; the one in use always is. The others are not dependencies:
`pip install common-expression-language cel-python` brings them. What is hostile runs in a child process
with 5 seconds and 4 GiB. `docs/where.md` has the figures of one run.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.where import WhereError, compiled
from tocsin_server.store import wire

from bench.events import sample_event

ROUNDS = 7
CALLS = 300
SECONDS = 5.0
BYTES = 4 << 30
LIST_ENTRIES = 20_000

Ask = Callable[[bytes], Any]
Compile = Callable[[str], Ask]


def plain(frame: bytes) -> dict[str, Any]:
    """Make what a library without protobuf messages is asked about."""
    event = wire.decode(frame)
    return {
        "type": event.type,
        "level": event.level.name.lower(),
        "message": event.message,
        "details": event.details,
        "resource": dict(event.resource),
        "source": dict(event.source),
        "labels": dict(event.labels),
    }


def in_use(text: str) -> Ask:
    """Compile as the server does."""
    where = compiled(text)
    return lambda frame: where.matches(frame, 2)


def in_rust(text: str) -> Ask:
    """Compile with common-expression-language."""
    program = importlib.import_module("cel").compile(text)
    return lambda frame: program.execute({"event": plain(frame)})


def in_python(text: str) -> Ask:
    """Compile with cel-python."""
    celpy = importlib.import_module("celpy")
    environment = celpy.Environment()
    program = environment.program(environment.compile(text))
    return lambda frame: program.evaluate({"event": celpy.json_to_cel(plain(frame))})


CANDIDATES: Mapping[str, tuple[str, Compile]] = {
    "cel-expr-python": ("cel_expr_python", in_use),
    "common-expression-language": ("cel", in_rust),
    "cel-python": ("celpy", in_python),
}
USUAL = {
    "a field": 'event.level == "error"',
    "a number of the details": "event.details.exitcode == 1",
    "two fields and a label": 'event.level == "error" && event.labels["region"] == "eu-1" && event.type != "x"',
    "a regular expression": 'event.message.matches("space .*device$")',
    "a list": "event.details.attempts.exists(a, a == 3)",
}
ANSWERS = {
    "1 == a number of the details": "event.details.exitcode == 1",
    "1.0 == a number of the details": "event.details.exitcode == 1.0",
    "a number plus 1": "event.details.exitcode + 1 == 2",
    "a number plus 1.0": "event.details.exitcode + 1.0 == 2.0",
    "a missing key": "event.details.nothing == 1",
    "a missing label": 'event.labels["nothing"] == "x"',
    "an unknown field": "event.nothing == 1",
    "a text that is no condition": "event.type",
    "text == number": "event.type == 1",
}
LIST, LONG = "event.details.l", "event.details.s"
HOSTILE = {
    "three loops over 20,000 entries": f"{LIST}.all(x, {LIST}.all(y, {LIST}.all(z, z >= 0.0)))",
    "20,000 searches of 100 KB": f'{LIST}.exists(x, {LONG}.contains("zz"))',
    "a text doubled 20 times": f"[{LONG}]" + ".map(a, a + a)" * 20 + ".size() > 0",
    "(a+)+$ on 100 KB": f'{LONG}.matches("(a+)+$b")',
    "a regular expression of 45,000 parts": rf'{LONG}.matches("(\\pL{{30}}){{30}}b")',
    "10,000 parentheses": "(" * 10_000 + "true" + ")" * 10_000,
}


def framed(event: pb.Event) -> bytes:
    """Make the stored form of an event."""
    event.id, event.account = "0" * 32, "admin"
    return pb.GetEventResponse(event=event).SerializeToString()


def micros(call: Callable[[], object], calls: int = CALLS) -> float:
    """Measure one call: the median of several rounds."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(rounds)


def answer(make: Compile, text: str, frame: bytes) -> str:
    """Say what an expression gives."""
    try:
        ask = make(text)
    except Exception as error:
        return f"refused: {str(error).splitlines()[0][:40]}"
    try:
        return str(ask(frame))[:40]
    except Exception as error:
        return f"error: {type(error).__name__}"


def hostile_frame() -> bytes:
    """Make an event with a long list and a long text."""
    event = sample_event()
    event.details.struct_value.update({"l": [0] * LIST_ENTRIES, "s": "a" * 100_000})
    return framed(event)


def survive(name: str, text: str, results: Any) -> None:
    """Ask the hostile event; runs in a child process."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    frame = hostile_frame()
    began = time.perf_counter()
    said = answer(CANDIDATES[name][1], text, frame)
    results.put(f"{(time.perf_counter() - began) * 1e3:.1f} ms, {said}")


def hostile(name: str, text: str) -> str:
    """Say how an expression ends in a child process."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    child = context.Process(target=survive, args=(name, text, results))
    child.start()
    child.join(SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        return f"not over after {SECONDS:g} s"
    return results.get() if child.exitcode == 0 else f"the process died ({child.exitcode})"


def table(title: str, names: list[str], rows: Mapping[str, list[str]]) -> None:
    """Print one table."""
    shown = Table(title=title)
    for heading in ("expression", *names):
        shown.add_column(heading, overflow="fold")
    for label, cells in rows.items():
        shown.add_row(label, *cells)
    Console(width=150).print(shown)


def main() -> None:
    """Compare what is installed."""
    names = [name for name, (module, _) in CANDIDATES.items() if importlib.util.find_spec(module) is not None]
    frame = framed(sample_event())
    makers = {name: CANDIDATES[name][1] for name in names}
    compiling = {}
    for label, text in USUAL.items():
        fresh = [f"{text} || event.id == '{number}'" for number in range(ROUNDS * 10 + 1)]
        compiling[label] = [f"{_compile_micros(makers[name], fresh):.0f}" for name in names]
    table("compile, us", names, compiling)
    asking = {
        label: [f"{_asking_micros(makers[name](text), frame):.1f}" for name in names] for label, text in USUAL.items()
    }
    table(f"per event of {len(frame)} bytes, decoding it included, us", names, asking)
    table("answers", names, {k: [answer(makers[name], text, frame) for name in names] for k, text in ANSWERS.items()})
    table("hostile", names, {k: [hostile(name, text) for name in names] for k, text in HOSTILE.items()})
    worst()


def _compile_micros(make: Compile, texts: list[str]) -> float:
    each = iter(texts)
    return micros(lambda: make(next(each)), 10)


def _asking_micros(ask: Ask, frame: bytes, calls: int = CALLS) -> float:
    return micros(lambda: ask(frame), calls)


def worst() -> None:
    """Measure the dearest things that the server takes."""
    frames = {"20,000 numbers": hostile_frame()}
    keys = sample_event()
    keys.details.struct_value.update({f"k{number}": {"a": number, "b": "x"} for number in range(6500)})
    frames["6,500 objects"] = framed(keys)
    texts = {
        "any field": 'event.type == "x"',
        "a loop": "event.details.l.all(x, x == 0.0)",
        "a search": 'event.details.s.contains("zz")',
        "30 searches": " || ".join(['event.details.s.contains("z")'] * 30),
        "16 regular expressions": " || ".join(['event.details.s.matches("a.*b.*c")'] * 16),
        "one of 390 instructions": 'event.details.s.matches("(a|b.|c..){8}.{5}z$")',
    }
    rows: dict[str, list[str]] = {}
    for label, text in texts.items():
        try:
            ask = in_use(text)
        except WhereError as error:
            rows[label] = [str(error)[:60]] * len(frames)
            continue
        rows[label] = [f"{_asking_micros(ask, frame, 3) / 1000:.2f}" for frame in frames.values()]
    sizes = [f"{name}, {len(frame) // 1000} KB" for name, frame in frames.items()]
    table("the dearest that the server takes, ms per event", sizes, rows)


if __name__ == "__main__":
    main()
