"""The hardware, its current state, and the lock that allows one run at a time."""
