"""Source and destination blocks of batch pipelines: each call is a flow."""
