"""``python -m ggq``: the same as the ``ggq`` command."""

import sys

from ggq.cli import main

sys.exit(main())
