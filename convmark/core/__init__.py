"""What every room uses: cases, suites, options, errors, text, units, statistics, git."""
