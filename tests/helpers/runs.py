"""Run recipes one after the other, in one process or in those of a launch: python -m tests.helpers.runs RECIPE ..."""

import sys

from edgemin_hf.cli import main

if __name__ == "__main__":
    for recipe in sys.argv[1:]:
        if code := main(["run", recipe]):
            sys.exit(code)
