"""`ray start` that takes this host for 127.0.0.1; not a test itself.

Ray puts the address of a network card in place of a loopback one, so that other hosts can join, and
listens there. A cluster of one host for tests has no use for that.
"""

from __future__ import annotations

import sys

from ray._private import services
from ray.scripts.scripts import main

if __name__ == "__main__":
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    sys.exit(main())
