"""What actions of alerts deliver, through real receivers: types that are kept, and the identity of a mail."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from itertools import product

from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import notifications_pb2 as notifications_pb
from tocsin_server.domain.variables import time_text

from tests.service.test_alert_control import HOURLY, executions, run
from tests.service.test_firing import fail
from tests.support.alerts import alert, create, mail, struct, webhook
from tests.support.mail_servers import DROP, scripted
from tests.support.receivers import Mailbox, WebhookReceiver, plain_of
from tests.support.servers import Api

BY_RESOURCE = {"window": "1h", "threshold": 1, "group_by": ["resource_id"]}


async def test_arrays_and_objects_reach_a_receiver_as_what_they_are(
    api: Api, box: Mailbox, hook: WebhookReceiver
) -> None:
    """KC6: a list of recipients by mail, a list and an object in the JSON of a webhook; everything else is text."""
    tags, people = "{{{tags}}}", ["ann@example.com", "ben@example.com"]
    body = {"people": tags, "group": "{{{context.group}}}", "count": "{{{context.count}}}", "in": [tags]}
    actions = [
        pb.Action(id=await mail(api, box), params=struct({"to": tags, "subject": "s", "body": f"{tags}!"})),
        pb.Action(id=await webhook(api, hook.url), params=struct({"body": body})),
    ]
    await fail(api, "nginx")
    await create(api, alert(tags=people, params=struct(BY_RESOURCE), actions=actions))
    ((recipients, message),) = await box.until(1)
    assert recipients == people
    assert plain_of(message).startswith('["ann@example.com","ben@example.com"]!')
    (posted,) = await hook.until(1)
    group = {"resource_id": "nginx"}
    assert json.loads(posted.body) == {"people": people, "group": group, "count": "1", "in": [people]}


async def delivered(api: Api, count: int) -> None:
    """Wait until so many deliveries have arrived."""
    request = notifications_pb.ListDeliveriesRequest(states=[notifications_pb.DELIVERY_STATE_DELIVERED])
    async with asyncio.timeout(20):
        while len((await api.notifications.ListDeliveries(request)).deliveries) < count:
            await asyncio.sleep(0.01)


async def mailing(api: Api, port: int) -> str:
    """Make a configuration that tries again soon."""
    connection = notifications_pb.EmailConnection(
        host="127.0.0.1",
        port=port,
        security=notifications_pb.EMAIL_SECURITY_NONE,
        from_address="tocsin@example.com",
        recipients=["ops@example.com"],
    )
    configuration = notifications_pb.EndpointConfiguration(name="mail", email=connection)
    configuration.options.retry_schedule[:] = [1]
    request = notifications_pb.CreateEndpointConfigurationRequest(configuration=configuration)
    return (await api.notifications.CreateEndpointConfiguration(request)).configuration.id


async def test_a_mail_is_one_per_alert_instance_run_and_action(api: Api) -> None:
    """XD25: its Message-ID is its own and the same at every attempt; the first is dropped after the dot."""
    dropped: list[str] = []

    def after_the_dot() -> str:
        if dropped:
            return "250 taken"
        dropped.append(str(server.mails[-1][1]["Subject"]))
        return DROP

    async with scripted({".": after_the_dot}) as server:
        mail_id, about = await mailing(api, server.port), "{{alertId}} {{alertInstanceId}} {{date}}"
        actions = [pb.Action(id=mail_id, params=struct({"subject": f"{about} {n}"})) for n in range(2)]
        for resource in ("nginx", "redis"):
            await fail(api, resource)
        subjects: dict[str, str] = {}  # by the delivery's id
        for name in ("one", "two"):
            created = await create(api, alert(name=name, **HOURLY | {"params": struct(BY_RESOURCE)}, actions=actions))
            for _ in range(2):
                await run(api, created.id)
            for execution in await executions(api, created.id):
                at = time_text(execution.scheduled_time.ToMicroseconds())
                for instance, n in product(execution.instances, range(2)):
                    subjects[instance.delivery_ids[n]] = f"{created.id} {instance.id} {at} {n}"
        assert len(subjects) >= 2 * 2 * 2 * 2  # alerts, runs, instances, actions
        await delivered(api, len(subjects))
        ids: dict[str, list[str]] = defaultdict(list)
        for _, message in server.mails:
            ids[str(message["Subject"])].append(str(message["Message-ID"]))
    assert ids == {s: [f"<{id}@example.com>"] * (2 if s in dropped else 1) for id, s in subjects.items()}
