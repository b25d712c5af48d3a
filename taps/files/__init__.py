"""tap-files: CSV, JSONL and Parquet files."""
