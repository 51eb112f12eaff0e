"""Lines of waiting deliveries by configuration, the class of each error, and the sums of promise P3.

The sums are kept by triggers: no statement that writes a delivery can forget them.
"""

from peewee import BigIntegerField, Model, TextField

ENDS = ("DELIVERED", "EXHAUSTED", "CANCELLED", "SILENCED")
FINAL = ", ".join(f"'{state}'" for state in ENDS)

STATEMENTS = """
DROP INDEX deliveries_due;
CREATE INDEX deliveries_waiting ON deliveries (account, configuration_id, due_at)
 WHERE state IN ('PENDING', 'RETRYING');
CREATE INDEX deliveries_paused ON deliveries (account, configuration_id, due_at) WHERE state = 'PAUSED';
ALTER TABLE deliveries ADD COLUMN status_code INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN error_class TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN error_class TEXT NOT NULL DEFAULT '';
"""


class DeliverySums(Model):
    account = TextField(primary_key=True)
    routed = BigIntegerField()
    delivered = BigIntegerField()
    exhausted = BigIntegerField()
    cancelled = BigIntegerField()
    silenced = BigIntegerField()

    class Meta:
        table_name = "delivery_sums"
        without_rowid = True


def counts(row, sign=""):
    return ", ".join(f"{sign}({row}.state = '{state}')" for state in ENDS)


def changes():
    return ", ".join(
        f"{state.lower()} = {state.lower()} + (NEW.state = '{state}') - (OLD.state = '{state}')" for state in ENDS
    )


def up(migrator, db):
    for statement in STATEMENTS.split(";"):
        if statement.strip():
            db.execute_sql(statement)
    with db.bind_ctx([DeliverySums]):
        db.create_tables([DeliverySums], safe=False)
    sums = ", ".join(f"sum(state = '{state}')" for state in ENDS)
    db.execute_sql(f"INSERT INTO delivery_sums SELECT account, count(*), {sums} FROM deliveries GROUP BY account")
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in ("routed", *(s.lower() for s in ENDS)))
    db.execute_sql(
        "CREATE TRIGGER deliveries_routed AFTER INSERT ON deliveries BEGIN"
        f" INSERT INTO delivery_sums VALUES (NEW.account, 1, {counts('NEW')})"
        f" ON CONFLICT (account) DO UPDATE SET {added}; END"
    )
    db.execute_sql(
        "CREATE TRIGGER deliveries_ended AFTER UPDATE OF state ON deliveries"
        f" WHEN OLD.state <> NEW.state AND (NEW.state IN ({FINAL}) OR OLD.state IN ({FINAL})) BEGIN"
        f" UPDATE delivery_sums SET {changes()} WHERE account = NEW.account; END"
    )
