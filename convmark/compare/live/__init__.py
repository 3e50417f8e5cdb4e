"""The old code beside the new, step by step: what convicts."""
