"""Run anomaly-detection methods on a data set and show the results: ``run.py --help``.

The same as the command ``indad`` of the installed package. It drives the same workflow as
``snakemake`` does: the same cache, the same products, and a second run computes only what changed.
"""

import sys

from indad.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
