"""tap-sqlite: tables and views of a SQLite database."""
