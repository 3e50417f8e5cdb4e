"""Interpreters to measure, made from a requirement such as `tensorflow==2.20.*` and kept."""
