"""Webhooks are verified by the public libraries: in Python by every other test, in Node here."""

from __future__ import annotations

import asyncio
import base64
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.polyglot.test_sharing import HERE, needs
from tests.service.test_notifications import created
from tests.service.test_webhooks import PRIVATE, SEED, webhook
from tests.support.receivers import SECRET, WebhookReceiver
from tests.support.servers import Api


@needs("node")
async def test_node_verifies_both_signatures(api: Api, hook: WebhookReceiver) -> None:
    await created(api, webhook(hook.url, private_key=PRIVATE))
    await api.append("a", message="größer")
    (posted,) = await hook.until(1)
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    told = {
        "secret": SECRET,
        "public_key": base64.urlsafe_b64encode(public).decode().rstrip("="),
        "headers": posted.headers,
        "body": posted.body.decode(),
    }
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "node" / "verify.mjs"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        stdout, _ = await process.communicate(json.dumps(told).encode())
    assert stdout.decode().split() == ["v1", "v1a"]
