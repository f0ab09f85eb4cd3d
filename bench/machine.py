"""What machine and interpreter this is, and whether anybody else is using it."""

import os
import platform
import resource
import sys
import sysconfig
import time

# The share of the whole machine that others may use before a measurement is called disturbed.
QUIET = 0.05


def first_match(path, key):
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def build_of_python():
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    words = [
        word
        for word in ("--enable-optimizations", "--with-lto", "--disable-gil")
        if word in options
    ]
    return " ".join(words) or "no special options"


def gil_is_on():
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def describe():
    memory = first_match("/proc/meminfo", "MemTotal")
    return {
        "processor": first_match("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{int(memory.split()[0]) / 2**20:.0f} GiB" if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": sys.version,
        "build": build_of_python(),
        "gil": gil_is_on(),
    }


def busy_seconds():
    """What all cores together have spent working since boot, None where nobody says."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(
                int, file.readline().split()[1:9]
            )
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    own = 0.0
    for who in resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN:
        usage = resource.getrusage(who)
        own += usage.ru_utime + usage.ru_stime
    return own


class Watch:
    """The share of the machine that others use between its making and `others()`."""

    def __init__(self):
        self.start = time.monotonic(), busy_seconds(), own_seconds()

    def others(self):
        then, busy, own = self.start
        if busy is None:
            return 0.0
        elapsed = (time.monotonic() - then) * os.cpu_count()
        foreign = (busy_seconds() - busy) - (own_seconds() - own)
        return max(0.0, foreign / max(elapsed, 1e-9))


def watch_for(seconds):
    watch = Watch()
    time.sleep(seconds)
    return watch.others()


def busy_processes():
    """Names of other processes that are running right now."""
    names = set()
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        if rest.split()[0] == "R":
            names.add(head.partition("(")[2])
    return sorted(names)


def check_quiet():
    """How busy others keep the machine: (share, load average, names of what runs)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    names = set()
    watch = Watch()
    for _ in range(10):
        time.sleep(0.05)
        names.update(busy_processes())
    return watch.others(), load, sorted(names)


def wait_until_quiet(patience):
    """Wait up to `patience` seconds for a quiet moment."""
    end = time.monotonic() + patience
    while patience and watch_for(0.3) > QUIET and time.monotonic() < end:
        pass
