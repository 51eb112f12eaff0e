"""The global flags about protection, on a server that requires a client's certificate."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from tocsin.cli.app import run
from tocsin.v1 import event_log_pb2 as pb

from tests.client.scripted import answer, serving
from tests.client.test_tls import identity


def test_certificates_and_a_key_by_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """B23."""
    theirs, mine = identity(), identity()
    for name, content in (("ROOTS", theirs.chain), ("KEY", mine.key), ("CHAIN", mine.chain)):
        path = tmp_path / name
        path.write_bytes(content)
        monkeypatch.setenv(f"TOCSIN_TLS_{name}", str(path))
    monkeypatch.setenv("TOCSIN_API_KEY", "k1")
    monkeypatch.setenv("TOCSIN_ACCOUNT", "acme")
    credentials = grpc.ssl_server_credentials([(theirs.key, theirs.chain)], mine.chain, require_client_auth=True)
    with serving(credentials) as script:
        script.on("GetEvent", answer(pb.GetEventResponse(event=pb.Event(id="x"))))
        monkeypatch.setenv("TOCSIN_ADDRESS", script.address)
        assert run(["event", "get", "x", "-o", "id"]) == 0
        metadata = script.seen[0].metadata
    assert capsys.readouterr().out == "x\n"
    assert (metadata["authorization"], metadata["x-tocsin-account"]) == ("Bearer k1", "acme")
    assert run(["--no-tls", "event", "get", "x"]) == 2
    said = capsys.readouterr().err
    assert "--no-tls: does not go with certificates" in said
    assert "k1" not in said
