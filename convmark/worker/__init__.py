"""What runs inside the measured interpreter: the framework and the standard library alone."""
