"""target-duckdb: tables of a DuckDB database."""
