"""Storms: threads that do everything to the locks at random for a while; then all must be in order.

    python tools/stress.py [--seconds N] [--seed S] [STORM ...]

Each storm runs for N seconds, checks what it did and prints its seed: the same seed makes the same
choices again (the scheduling is the machine's). `make test` runs every storm for about a second.
"""

import argparse
import faulthandler
import random
import sys
from pathlib import Path

# With -P no folder of the checkout is in sys.path.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from storms import STORMS, run
from storms.crowd import PATIENCE


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("storms", nargs="*", metavar="STORM", help=", ".join(STORMS))
    parser.add_argument("--seconds", type=float, default=10, help="of each storm")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    if unknown := set(arguments.storms) - set(STORMS):
        parser.error(f"no such storm: {', '.join(sorted(unknown))}")
    faulthandler.enable()
    for name in arguments.storms or STORMS:
        faulthandler.dump_traceback_later(arguments.seconds + 2 * PATIENCE, exit=True)
        run(name, arguments.seconds, arguments.seed)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
