"""Which channels can only be removed together, found in a model's traced program."""
