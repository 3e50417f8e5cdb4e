"""GPUs on the harness side: fingerprint, state during a case, and problems."""
