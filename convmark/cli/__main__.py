"""`python -m convmark.cli` is `convmark`."""

import sys

from convmark.cli import main

sys.exit(main())
