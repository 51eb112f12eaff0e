"""Alerts, when they run, and their instances."""

from peewee import BigIntegerField, BooleanField, CompositeKey, Model, TextField

INDEXES = """
CREATE INDEX alerts_by_name ON alerts (account, name_folded, id);
CREATE INDEX alert_tasks_due ON alert_tasks (next_run_at) WHERE next_run_at IS NOT NULL;
"""


class AlertRow(Model):
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

    class Meta:
        table_name = "alerts"
        primary_key = CompositeKey("account", "id")


class AlertTaskRow(Model):
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

    class Meta:
        table_name = "alert_instances"
        primary_key = CompositeKey("account", "alert_id", "id")


def up(migrator, db):
    tables = [AlertRow, AlertTaskRow, AlertInstanceRow]
    with db.bind_ctx(tables):
        db.create_tables(tables, safe=False)
    for statement in INDEXES.split(";"):
        if statement.strip():
            db.execute_sql(statement)
