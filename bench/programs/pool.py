"""Tasks a second of a ThreadPoolExecutor with four workers."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

count = int(sys.argv[1])
with ThreadPoolExecutor(4) as pool:
    pool.submit(int).result()
    started = time.perf_counter()
    for future in [pool.submit(int) for _ in range(count)]:
        future.result()
    print(count / (time.perf_counter() - started))
