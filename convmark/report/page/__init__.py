"""The report as one self-contained page: no network, no framework, every text escaped."""
