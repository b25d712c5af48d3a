"""target-files: JSONL, CSV or Parquet files in a folder per stream."""
