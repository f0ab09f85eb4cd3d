"""Log records a second: RECORDS in all, from THREADS threads through one handler."""

import logging
import os
import sys
import threading
import time

records, count = map(int, sys.argv[1:])
log = logging.getLogger("bench")
log.propagate = False
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler(open(os.devnull, "w")))


def work():
    for number in range(records // count):
        log.info("record %d", number)


threads = [threading.Thread(target=work) for _ in range(count)]
started = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(records // count * count / (time.perf_counter() - started))
