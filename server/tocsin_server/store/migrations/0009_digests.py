"""Digests: which delivery tells which others, and the newest digest of each group."""

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, TextField

FINAL = "'DELIVERED', 'EXHAUSTED', 'CANCELLED', 'SILENCED'"
STATEMENTS = (
    "ALTER TABLE deliveries ADD COLUMN digest_id TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX deliveries_grouped ON deliveries (account, digest_id, event_position) WHERE digest_id <> ''",
    # The second condition on digest_id is what lets the partial index be used.
    # What a digest tells ends with it, and begins anew with it, whatever statement does that to the digest.
    f"""CREATE TRIGGER digests_ended AFTER UPDATE OF state ON deliveries
    WHEN OLD.route_key GLOB 'digest/*' AND NEW.state IN ({FINAL}) AND OLD.state NOT IN ({FINAL}) BEGIN
    UPDATE deliveries SET state = NEW.state, reason = NEW.reason, ended_at = NEW.ended_at
    WHERE account = NEW.account AND digest_id = NEW.id AND digest_id <> '' AND state = 'GROUPED'; END""",
    f"""CREATE TRIGGER digests_begun_anew AFTER UPDATE OF state ON deliveries
    WHEN OLD.route_key GLOB 'digest/*' AND OLD.state IN ({FINAL}) AND NEW.state NOT IN ({FINAL}) BEGIN
    UPDATE deliveries SET state = 'GROUPED', reason = '', ended_at = 0
    WHERE account = NEW.account AND digest_id = NEW.id AND digest_id <> '' AND state IN ({FINAL}); END""",
)


class DigestGroup(Model):
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


def up(migrator, db):
    for statement in STATEMENTS:
        db.execute_sql(statement)
    with db.bind_ctx([DigestGroup]):
        db.create_tables([DigestGroup], safe=False)
    db.execute_sql("CREATE INDEX digest_groups_age ON digest_groups (due_at)")
