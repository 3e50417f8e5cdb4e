"""Is it slower? Sessions in, verdicts out: pure arithmetic."""
