"""How far retention has come."""

from peewee import BigIntegerField, Model, TextField


class HorizonRow(Model):
    account = TextField(primary_key=True)
    position = BigIntegerField()

    class Meta:
        table_name = "horizons"


def up(migrator, db):
    with db.bind_ctx([HorizonRow]):
        db.create_tables([HorizonRow], safe=False)
