"""Metrics, sessions, verdicts, history and change points."""
