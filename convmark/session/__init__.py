"""One run on this machine: plan, measure, rows, resume, progress."""
