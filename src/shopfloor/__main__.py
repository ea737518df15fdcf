"""``python -m shopfloor``."""

import sys

from shopfloor.fast import main

sys.exit(main())
