"""L3RS inside `transformers.Trainer`."""
