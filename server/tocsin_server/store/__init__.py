"""What is remembered. The only room that speaks Peewee and SQL; it never calls out and never sends."""
