"""Webhooks are verified as the public library of Standard Webhooks signs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import tocsin
from standardwebhooks import Webhook

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BODY = '{"type": "a.b"}'
SECRET, OTHER = tocsin.new_webhook_secret(), tocsin.new_webhook_secret()


def signed(secret: str = SECRET, at: datetime = NOW, changed: dict[str, str] | None = None) -> dict[str, str]:
    headers = {
        "Webhook-Id": "d1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("d1", at, BODY),
    }
    return headers | (changed or {})


def test_a_signed_message_is_taken() -> None:
    assert tocsin.verify_webhook(SECRET, signed(), BODY.encode(), now=NOW) == "d1"
    late = NOW + timedelta(minutes=5)
    assert tocsin.verify_webhook([OTHER, SECRET], signed(), BODY.encode(), now=late) == "d1"
    both = f"v1a,xxxx {signed(OTHER)['webhook-signature']} {signed()['webhook-signature']}"
    assert tocsin.verify_webhook(SECRET, signed(changed={"webhook-signature": both}), BODY.encode(), now=NOW) == "d1"
    with pytest.raises(tocsin.WebhookRefused, match="it is old: sent"):
        tocsin.verify_webhook(SECRET, signed(at=datetime(2020, 1, 1, tzinfo=UTC)), BODY.encode())


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, BODY, "it has no webhook-id, webhook-timestamp, webhook-signature"),
        (signed(OTHER), BODY, "its signature is of another secret"),
        (signed(), BODY + " ", "its content was changed"),
        (signed(changed={"Webhook-Id": "d2"}), BODY, "its content was changed"),
        (signed(changed={"webhook-signature": "v1a,xxxx"}), BODY, "no signature of version v1"),
        (signed(changed={"webhook-signature": "v1,ü"}), BODY, "its signature is of another secret"),
        (signed(changed={"webhook-timestamp": "noon"}), BODY, "its timestamp 'noon' is no time"),
        (signed(changed={"webhook-timestamp": "9" * 30}), BODY, "is no time"),
        (signed(at=NOW - timedelta(minutes=6)), BODY, "it is old: sent 360 s away"),
        (signed(at=NOW + timedelta(minutes=6)), BODY, "it is from the future"),
    ],
)
def test_what_cannot_be_trusted_is_refused(headers: dict[str, str], body: str, said: str) -> None:
    with pytest.raises(tocsin.WebhookRefused, match=said):
        tocsin.verify_webhook(SECRET, headers, body.encode(), now=NOW)


@pytest.mark.parametrize("secret", ["hush", "whsec_ä", "whsec_a"])
def test_a_secret_that_is_none_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="a secret") as raised:
        tocsin.verify_webhook(secret, signed(), BODY.encode(), now=NOW)
    assert secret not in str(raised.value)
