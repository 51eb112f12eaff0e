"""Mutes, what silences withhold, the record of executions, and where alerts are shown."""

from peewee import BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField

COLUMNS = (
    "ALTER TABLE alerts ADD COLUMN mute_all INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE alerts ADD COLUMN muted_instance_ids TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE alert_instances ADD COLUMN withheld_group TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE alert_instances ADD COLUMN withheld_subgroup TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE alert_instances ADD COLUMN withheld_at INTEGER",
)
INDEXES = (
    "CREATE INDEX alert_executions_started ON alert_executions (started_at)",
    "CREATE INDEX alert_executions_failed ON alert_executions (account, alert_id, started_at) WHERE error_reason <> ''",
)


class ExecutionRow(Model):
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

    class Meta:
        table_name = "alert_executions"
        primary_key = CompositeKey("account", "alert_id", "number")
        without_rowid = True


class NavigationRow(Model):
    account = TextField()
    consumer = TextField()
    alert_type_id = TextField()
    path_template = TextField()

    class Meta:
        table_name = "alert_navigations"
        primary_key = CompositeKey("account", "consumer", "alert_type_id")
        without_rowid = True


def up(migrator, db):
    for statement in COLUMNS:
        db.execute_sql(statement)
    tables = [ExecutionRow, NavigationRow]
    with db.bind_ctx(tables):
        db.create_tables(tables, safe=False)
    for statement in INDEXES:
        db.execute_sql(statement)
