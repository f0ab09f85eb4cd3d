"""Log records a second: RECORDS in all, from THREADS threads through one handler.

logs.py RECORDS THREADS [queue]: with `queue` through a QueueHandler to a QueueListener.
"""

import logging
import logging.handlers
import os
import queue
import sys
import threading
import time

records, count = map(int, sys.argv[1:3])
log = logging.getLogger("bench")
log.propagate = False
log.setLevel(logging.INFO)
handler = logging.StreamHandler(open(os.devnull, "w"))
listener = None
if sys.argv[3:] == ["queue"]:
    waiting = queue.Queue()
    listener = logging.handlers.QueueListener(waiting, handler)
    listener.start()
    handler = logging.handlers.QueueHandler(waiting)
log.addHandler(handler)


def work():
    for number in range(records // count):
        log.info("record %d", number)


threads = [threading.Thread(target=work) for _ in range(count)]
started = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if listener is not None:
    listener.stop()  # after the last record
print(records // count * count / (time.perf_counter() - started))
