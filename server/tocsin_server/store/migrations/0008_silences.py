"""Silences of an account."""

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, TextField


class Silence(Model):
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
    deleted = IntegerField()

    class Meta:
        table_name = "silences"
        primary_key = CompositeKey("account", "id")


def up(migrator, db):
    with db.bind_ctx([Silence]):
        db.create_tables([Silence], safe=False)
    db.execute_sql("CREATE INDEX silences_to_start ON silences (starts_at) WHERE told = 0")
    db.execute_sql("CREATE INDEX silences_to_end ON silences (ends_at) WHERE told = 1")
