"""The planner of streaming pipelines: sources, transformers and sinks of messages in one graph, without an end."""
