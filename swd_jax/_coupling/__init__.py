"""Channel groups: channels that can only be removed together, found by tracing."""
