"""Live comparisons: the old and the new code run in turns."""
