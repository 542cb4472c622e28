"""`python -m kregs` is the command `kregs`."""

from __future__ import annotations

import sys

from kregs.cli import main

sys.exit(main())
