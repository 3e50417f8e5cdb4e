"""`python -m convmark` is `convmark`."""

import sys

from convmark.cli import main

sys.exit(main())
