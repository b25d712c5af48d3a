"""Running integration pipelines: taps, transformers and targets as one live pipe."""
