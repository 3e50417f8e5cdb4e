"""The GPUs as the harness sees them: fingerprint, state while a case is measured, what is wrong."""
