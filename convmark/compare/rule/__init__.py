"""The decision rule: sessions in, verdicts out; pure arithmetic."""
