"""Instances that wait to be told, and the executions of an alert counted without gaps."""

STATEMENTS = (
    "ALTER TABLE alert_instances ADD COLUMN waits_since INTEGER",
    "ALTER TABLE alert_executions ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0",
    """UPDATE alert_executions SET ordinal = counted.ordinal FROM (
    SELECT account, alert_id, number, row_number() OVER (PARTITION BY account, alert_id ORDER BY number) AS ordinal
    FROM alert_executions) AS counted WHERE alert_executions.account = counted.account
    AND alert_executions.alert_id = counted.alert_id AND alert_executions.number = counted.number""",
)


def up(migrator, db):
    for statement in STATEMENTS:
        db.execute_sql(statement)
