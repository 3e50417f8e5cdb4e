"""The hardware, what it is doing now, and the lock that gives it to one run."""
