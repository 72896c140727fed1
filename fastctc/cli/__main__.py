"""Run the ``fastctc`` command as ``python -m fastctc.cli``."""

import sys

from fastctc.cli import main

sys.exit(main())
