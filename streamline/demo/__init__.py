"""The demo project: sync the changing SQLite database of a shop to a DuckDB warehouse."""
