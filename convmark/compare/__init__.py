"""Is it slower? Metrics, sessions, verdicts, history and change points."""
