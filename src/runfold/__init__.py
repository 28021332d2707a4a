"""The run ledger on PostgreSQL: what a program imports."""
