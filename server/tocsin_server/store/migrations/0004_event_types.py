"""The catalogue of event types that accounts have registered."""

from peewee import BigIntegerField, CompositeKey, Model, TextField


class EventTypeRow(Model):
    account = TextField()
    type = TextField()
    subtype = TextField()
    spec = TextField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "event_types"
        primary_key = CompositeKey("account", "type", "subtype")
        without_rowid = True


def up(migrator, db):
    with db.bind_ctx([EventTypeRow]):
        db.create_tables([EventTypeRow], safe=False)
