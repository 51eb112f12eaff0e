"""The tables, as Peewee models. Not bound to a database: each query names the one that it runs on.

Times are integer microseconds since 1970 UTC. Every table of users' data begins its key or its
indexes with the account. The models say what the newest migration has made; `migrations/` says how.
"""

from __future__ import annotations

from peewee import BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField


class LogHead(Model):
    """One row: the newest position. The lock on it orders all appends.

    `key_check` tells the key that the secrets of this store are encrypted with.
    """

    id = IntegerField(primary_key=True)
    log_id = TextField()
    head = BigIntegerField()
    created_at = BigIntegerField()
    key_check = TextField(default="")

    class Meta:
        table_name = "log_head"


class EventRow(Model):
    """One event: the columns that filters need, and the whole event in its framed wire form.

    `deleted_at` is not 0 for an event that is hidden but whose body an open delivery still needs.
    """

    position = BigIntegerField(primary_key=True)
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
    """Which event has an id: kept at least 7 days longer than the event, so that a repeat is known."""

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
    """What a request id was answered with: positions of an append, or the id of a created object."""

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


class EventTypeRow(Model):
    """One entry of an account's catalogue; `spec` is JSON."""

    account = TextField()
    type = TextField()
    subtype = TextField()
    spec = TextField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "event_types"
        primary_key = CompositeKey("account", "type", "subtype")
        without_rowid = True


class HorizonRow(Model):
    """How far retention has come: an account's oldest readable position; account '' is all of them."""

    account = TextField(primary_key=True)
    position = BigIntegerField()

    class Meta:
        table_name = "horizons"


class Cursor(Model):
    """The durable place of an internal reader of the log, moved only by the owner of its epoch."""

    name = TextField(primary_key=True)
    position = BigIntegerField()
    epoch = BigIntegerField()

    class Meta:
        table_name = "cursors"


class AlertRow(Model):
    """One alert as its user wrote it; `spec` is JSON. What its runs change is in `AlertTaskRow`."""

    account = TextField()
    id = TextField()
    version = BigIntegerField()
    enabled = BooleanField()
    name = TextField()
    name_folded = TextField()
    tags_folded = TextField()
    alert_type_id = TextField()
    consumer = TextField()
    spec = TextField()
    created_by = TextField()
    updated_by = TextField()
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    mute_all = IntegerField(default=0)
    muted_instance_ids = TextField(default="[]")

    class Meta:
        table_name = "alerts"
        primary_key = CompositeKey("account", "id")


class AlertTaskRow(Model):
    """When an alert runs next, and how its newest run went. `run_number` is the fence of its runs.

    `next_run_at` is null for an alert that is disabled; the run that is claimed keeps it until it is
    settled, so that a crash repeats the run.
    """

    account = TextField()
    alert_id = TextField()
    next_run_at = BigIntegerField(null=True)
    run_number = BigIntegerField()
    lease_until = BigIntegerField(default=0)
    status = TextField()
    last_execution_at = BigIntegerField(null=True)
    error_reason = TextField(default="")
    error_message = TextField(default="")
    state = TextField(default="{}")
    previous_started_at = BigIntegerField(null=True)
    log_position = BigIntegerField(default=0)

    class Meta:
        table_name = "alert_tasks"
        primary_key = CompositeKey("account", "alert_id")


class AlertInstanceRow(Model):
    """One active instance of an alert: its group after the newest run, when it was told last, and withheld.

    `waits_since`: it is told with the next run, because a run did not have room for it.
    """

    account = TextField()
    alert_id = TextField()
    id = TextField()
    action_group = TextField()
    action_subgroup = TextField()
    started_at = BigIntegerField()
    context = TextField()
    state = TextField()
    notified_group = TextField(default="")
    notified_subgroup = TextField(default="")
    notified_at = BigIntegerField(null=True)
    withheld_group = TextField(default="")
    withheld_subgroup = TextField(default="")
    withheld_at = BigIntegerField(null=True)
    untold_change = IntegerField(default=0)
    waits_since = BigIntegerField(null=True)

    class Meta:
        table_name = "alert_instances"
        primary_key = CompositeKey("account", "alert_id", "id")


class ExecutionRow(Model):
    """One run of an alert as it was written; `instances` is compressed JSON, empty without any.

    `ordinal` counts the executions of an alert without gaps, as `number` does not.
    """

    account = TextField()
    alert_id = TextField()
    number = BigIntegerField()
    scheduled_at = BigIntegerField()
    started_at = BigIntegerField()
    duration_us = BigIntegerField()
    status = TextField()
    error_reason = TextField()
    error_message = TextField()
    missed = IntegerField()
    log_position = BigIntegerField()
    instances = BlobField()
    ordinal = BigIntegerField(default=0)

    class Meta:
        table_name = "alert_executions"
        primary_key = CompositeKey("account", "alert_id", "number")
        without_rowid = True


class NavigationRow(Model):
    """Where alerts of a consumer are shown; those of any type where `alert_type_id` is empty."""

    account = TextField()
    consumer = TextField()
    alert_type_id = TextField()
    path_template = TextField()

    class Meta:
        table_name = "alert_navigations"
        primary_key = CompositeKey("account", "consumer", "alert_type_id")
        without_rowid = True


class ConsumerRow(Model):
    """One durable consumer: its rules, and `cursor`: matching events above it come anew.

    `id` tells it from a later consumer of the same name; `criteria` is its filter as JSON.
    """

    account = TextField()
    name = TextField()
    id = TextField(unique=True)
    criteria = TextField()
    lease_us = BigIntegerField()
    max_retries = IntegerField()
    max_in_flight = IntegerField()
    retry_delay_us = BigIntegerField()
    cursor = BigIntegerField()
    created_at = BigIntegerField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "consumers"
        primary_key = CompositeKey("account", "name")


class ConsumerEventRow(Model):
    """An event that is open although the cursor has passed it, or that has failed before."""

    consumer_id = TextField()
    position = BigIntegerField()
    attempts = IntegerField()
    failures = IntegerField()

    class Meta:
        table_name = "consumer_events"
        primary_key = CompositeKey("consumer_id", "position")
        without_rowid = True


class ParkedEventRow(Model):
    """An event that a consumer does not hand out until somebody decides."""

    consumer_id = TextField()
    position = BigIntegerField()
    attempts = IntegerField()
    cause = TextField()
    reason = TextField()
    parked_by = TextField()
    parked_at = BigIntegerField()

    class Meta:
        table_name = "parked_events"
        primary_key = CompositeKey("consumer_id", "position")
        without_rowid = True
