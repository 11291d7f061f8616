"""`python -m edgemin_hf`, which is what `accelerate launch -m edgemin_hf` runs."""

import sys

from edgemin_hf.cli import main

sys.exit(main())
