"""The log, its keys, endpoint configurations and deliveries."""

from peewee import BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField

INDEXES = """
CREATE INDEX events_by_time ON events (account, timestamp);
CREATE INDEX events_by_type ON events (account, type, timestamp);
CREATE INDEX events_by_resource ON events (account, resource_id, timestamp) WHERE resource_id <> '';
CREATE INDEX events_by_service ON events (account, service, timestamp) WHERE service <> '';
CREATE INDEX events_by_host ON events (account, host, timestamp) WHERE host <> '';
CREATE INDEX events_errors ON events (account, timestamp) WHERE level = 2;
CREATE INDEX events_hidden ON events (position) WHERE deleted_at <> 0;
CREATE INDEX event_keys_deleted ON event_keys (deleted_at) WHERE deleted_at <> 0;
CREATE INDEX request_keys_by_age ON request_keys (created_at);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state IN ('PENDING', 'RETRYING');
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE state = 'SENDING';
CREATE INDEX deliveries_open ON deliveries (account, configuration_id) WHERE ended_at = 0;
CREATE INDEX deliveries_by_configuration ON deliveries (account, configuration_id, created_at, id);
CREATE INDEX deliveries_by_time ON deliveries (account, created_at, id);
CREATE INDEX deliveries_by_event ON deliveries (account, event_id, created_at, id) WHERE event_position > 0;
CREATE INDEX deliveries_open_events ON deliveries (event_position) WHERE event_position > 0 AND ended_at = 0;
CREATE INDEX deliveries_by_alert ON deliveries (account, alert_id, created_at, id) WHERE alert_id <> '';
"""


class LogHead(Model):
    id = IntegerField(primary_key=True)
    log_id = TextField()
    head = BigIntegerField()
    created_at = BigIntegerField()
    key_check = TextField(default="")

    class Meta:
        table_name = "log_head"


class EventRow(Model):
    # INTEGER, not BIGINT: the primary key is then SQLite's own row id, and every index ends in it.
    position = IntegerField(primary_key=True)
    account = TextField()
    id = TextField()
    type = TextField()
    subtype = TextField()
    level = IntegerField()
    resource_type = TextField()
    resource_id = TextField()
    user_id = TextField()
    service = TextField()
    host = TextField()
    labels = TextField()
    timestamp = BigIntegerField()
    created_at = BigIntegerField()
    deleted_at = BigIntegerField(default=0)
    crc = BigIntegerField()
    body = BlobField()

    class Meta:
        table_name = "events"


class EventKey(Model):
    account = TextField()
    id = TextField()
    position = BigIntegerField()
    digest = BlobField(null=True)
    deleted_at = BigIntegerField(default=0)

    class Meta:
        table_name = "event_keys"
        primary_key = CompositeKey("account", "id")
        without_rowid = True


class RequestKey(Model):
    account = TextField()
    method = TextField()
    request_id = TextField()
    digest = BlobField()
    answer = TextField()
    created_at = BigIntegerField()

    class Meta:
        table_name = "request_keys"
        primary_key = CompositeKey("account", "method", "request_id")
        without_rowid = True


class Cursor(Model):
    name = TextField(primary_key=True)
    position = BigIntegerField()
    epoch = BigIntegerField()

    class Meta:
        table_name = "cursors"


class EndpointRow(Model):
    kind = TextField(primary_key=True)
    enabled = BooleanField()

    class Meta:
        table_name = "endpoints"


class ConfigurationRow(Model):
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

    class Meta:
        table_name = "endpoint_configurations"
        primary_key = CompositeKey("account", "id")


class DeliveryRow(Model):
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

    class Meta:
        table_name = "deliveries"
        primary_key = CompositeKey("account", "id")


class AttemptRow(Model):
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

    class Meta:
        table_name = "attempts"
        primary_key = CompositeKey("account", "delivery_id", "number")
        without_rowid = True


TABLES = [
    LogHead,
    EventRow,
    EventKey,
    RequestKey,
    Cursor,
    EndpointRow,
    ConfigurationRow,
    DeliveryRow,
    AttemptRow,
]


def up(migrator, db):
    with db.bind_ctx(TABLES):
        db.create_tables(TABLES, safe=False)
    for statement in INDEXES.split(";"):
        if statement.strip():
            db.execute_sql(statement)
