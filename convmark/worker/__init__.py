"""Runs inside the measured interpreter; needs only the framework and the standard library."""
