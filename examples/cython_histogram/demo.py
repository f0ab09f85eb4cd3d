"""Eight threads fill one histogram.

python setup.py build_ext --inplace && python demo.py
"""

import random
from array import array
from concurrent.futures import ThreadPoolExecutor

from histogram import Histogram

THREADS, EACH = 8, 100_000

random.seed(1)
parts = [array("d", (random.random() for _ in range(EACH))) for _ in range(THREADS)]
histogram = Histogram()
with ThreadPoolExecutor(THREADS) as pool:
    list(pool.map(histogram.add, parts))

count, total = histogram.totals()
assert count == THREADS * EACH
print(f"{count} values in {THREADS} threads, mean {total / count:.4f}")
