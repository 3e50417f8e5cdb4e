"""A run against its history: numbers and rows in, verdicts out; nothing is measured here."""
