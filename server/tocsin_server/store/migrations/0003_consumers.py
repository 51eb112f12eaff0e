"""Durable consumers: how far they are, what is open, what is parked."""

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, TextField


class ConsumerRow(Model):
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
    consumer_id = TextField()
    position = BigIntegerField()
    attempts = IntegerField()
    failures = IntegerField()

    class Meta:
        table_name = "consumer_events"
        primary_key = CompositeKey("consumer_id", "position")
        without_rowid = True


class ParkedEventRow(Model):
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


def up(migrator, db):
    tables = [ConsumerRow, ConsumerEventRow, ParkedEventRow]
    with db.bind_ctx(tables):
        db.create_tables(tables, safe=False)
