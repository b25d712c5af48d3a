"""The demonstration project: a shop whose database keeps changing, synced into a DuckDB warehouse."""
