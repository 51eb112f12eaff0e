"""How the deliveries of a configuration are made and sent, and how its receiver does."""

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, TextField


class HealthRow(Model):
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


def up(migrator, db):
    db.execute_sql("ALTER TABLE endpoint_configurations ADD COLUMN options TEXT NOT NULL DEFAULT '{}'")
    with db.bind_ctx([HealthRow]):
        db.create_tables([HealthRow], safe=False)
