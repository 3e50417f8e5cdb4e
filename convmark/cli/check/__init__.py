"""One device checked from end to end: what scripts/gpu_check runs."""
