"""The tables of notifications, as Peewee models; see `tables.py` for what holds for all of them."""

from __future__ import annotations

from peewee import BigIntegerField, BooleanField, CompositeKey, IntegerField, Model, TextField


class EndpointRow(Model):
    """The switch of one kind of endpoint; a kind without a row is on."""

    kind = TextField(primary_key=True)
    enabled = BooleanField()

    class Meta:
        table_name = "endpoints"


class ConfigurationRow(Model):
    """One endpoint configuration; `connection` is JSON with its secret fields encrypted."""

    account = TextField()
    id = TextField()
    kind = TextField()
    name = TextField()
    description = TextField()
    enabled = BooleanField()
    connection = TextField()
    selectors = TextField()
    version = BigIntegerField()
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    options = TextField(default="{}")

    class Meta:
        table_name = "endpoint_configurations"
        primary_key = CompositeKey("account", "id")


class HealthRow(Model):
    """How the receiver of one configuration does; one that has never failed has no row."""

    account = TextField()
    configuration_id = TextField()
    state = TextField()
    reason = TextField()
    since = BigIntegerField()
    until = BigIntegerField()
    failures = IntegerField()
    first_failure_at = BigIntegerField()
    broken = IntegerField()
    throttles = IntegerField()
    not_found = IntegerField()
    told_at = BigIntegerField()
    told_percent = IntegerField()

    class Meta:
        table_name = "endpoint_health"
        primary_key = CompositeKey("account", "configuration_id")
        without_rowid = True


class DeliveryRow(Model):
    """One message to one configuration. `attempt` is the fence: a write carries the number it knows.

    `scheduled` counts the attempts that used up the schedule; waiting as asked does not.
    """

    account = TextField()
    id = TextField()
    route_key = TextField(unique=True)
    configuration_id = TextField()
    kind = TextField()
    event_position = BigIntegerField(default=0)
    event_id = TextField(default="")
    alert_id = TextField(default="")
    subject = TextField(default="{}")
    content = TextField(default="")
    state = TextField()
    reason = TextField(default="")
    attempt = IntegerField(default=0)
    scheduled = IntegerField(default=0)
    due_at = BigIntegerField()
    lease_until = BigIntegerField(default=0)
    recipients = TextField(default="[]")
    correlation_id = TextField(default="")
    request_id = TextField(default="")
    traceparent = TextField(default="")
    created_at = BigIntegerField()
    ended_at = BigIntegerField(default=0)
    status_code = IntegerField(default=0)
    error_class = TextField(default="")
    digest_id = TextField(default="")

    class Meta:
        table_name = "deliveries"
        primary_key = CompositeKey("account", "id")


class DeliverySumsRow(Model):
    """What became of all deliveries of an account; kept by triggers, over purges."""

    account = TextField(primary_key=True)
    routed = BigIntegerField()
    delivered = BigIntegerField()
    exhausted = BigIntegerField()
    cancelled = BigIntegerField()
    silenced = BigIntegerField()

    class Meta:
        table_name = "delivery_sums"
        without_rowid = True


class DigestGroupRow(Model):
    """The newest digest of a group; `digest_id` is empty when that takes in no more events."""

    account = TextField()
    configuration_id = TextField()
    group_key = TextField()
    number = BigIntegerField()
    digest_id = TextField()
    items = IntegerField()
    due_at = BigIntegerField()

    class Meta:
        table_name = "digest_groups"
        primary_key = CompositeKey("account", "configuration_id", "group_key")
        without_rowid = True


class AttemptRow(Model):
    """One try to send a delivery, recorded as begun before anything is sent."""

    account = TextField()
    delivery_id = TextField()
    number = IntegerField()
    started_at = BigIntegerField()
    duration_us = BigIntegerField(null=True)
    verdict = TextField(default="")
    status_code = IntegerField(default=0)
    response_excerpt = TextField(default="")
    error = TextField(default="")
    next_attempt_at = BigIntegerField(default=0)
    error_class = TextField(default="")

    class Meta:
        table_name = "attempts"
        primary_key = CompositeKey("account", "delivery_id", "number")
        without_rowid = True


class SilenceRow(Model):
    """One silence; `criteria` is its filter as JSON, `told` what the log was told of it: 1 its start, 2 its end.

    A deleted one is kept for a while: what was stored while it held is judged by it.
    """

    account = TextField()
    id = TextField()
    criteria = TextField()
    starts_at = BigIntegerField()
    ends_at = BigIntegerField()
    author = TextField()
    comment = TextField()
    told = IntegerField()
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    deleted = BooleanField()

    class Meta:
        table_name = "silences"
        primary_key = CompositeKey("account", "id")
