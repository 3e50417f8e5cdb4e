"""Shared by all rooms: cases, suites, options, errors, text, units, statistics, git."""
