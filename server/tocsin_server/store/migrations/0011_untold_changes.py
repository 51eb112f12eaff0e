"""Instances whose sub-group has changed while nobody could be told."""


def up(migrator, db):
    db.execute_sql("ALTER TABLE alert_instances ADD COLUMN untold_change INTEGER NOT NULL DEFAULT 0")
