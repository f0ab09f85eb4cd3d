"""The formats of a Recording of fastsync.profile: text here, the others in _profile_formats.py."""

import json
import os

from fastsync.profile import _is_inner, site_of

FORMATS = ("json", "html", "text", "speedscope", "collapsed", "pprof")
_ENDINGS = (
    (".speedscope.json", "speedscope"),
    (".json", "json"),
    (".html", "html"),
    (".htm", "html"),
    (".txt", "text"),
    (".collapsed", "collapsed"),
    (".folded", "collapsed"),
    (".pb.gz", "pprof"),
    (".pprof", "pprof"),
)


def format_of(path):
    """Return the format that a file's name asks for."""
    for ending, format in _ENDINGS:
        if os.fspath(path).endswith(ending):
            return format
    endings = ", ".join(ending for ending, _ in _ENDINGS)
    raise ValueError(f"no format is known for {os.fspath(path)!r}; endings: {endings}")


def render(data, format):
    """Return the bytes of a file in this format."""
    if format == "json":
        return json.dumps(data, separators=(",", ":")).encode()
    if format == "text":
        return text(data).encode()
    if format == "html":
        from fastsync._watch import profile_html

        return profile_html.page(data).encode()
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    from fastsync._watch import profile_formats

    return getattr(profile_formats, format)(data)


# -- rows ------------------------------------------------------------------------


def percentile(histogram, share):
    """Return nanoseconds, right within 5 %: bins are eighths of powers of two."""
    bins = sorted((int(bin), weight) for bin, weight in histogram.items())
    left = share * sum(weight for _, weight in bins)
    for bin, weight in bins:
        left -= weight
        if left <= 0:
            return 2 ** ((bin + 0.5) / 8)
    return 2 ** ((bins[-1][0] + 0.5) / 8) if bins else 0.0


def rows(data):
    """Return a dict for each lock, the longest waited for first; locks before work before joins."""
    result = []
    for index, lock in enumerate(data["locks"]):
        made = site_of(lock["made"])
        count, ns = lock["count"], lock["ns"]
        result.append(
            {
                "kind": lock["kind"],
                "name": lock["name"],
                "made": made,
                "work": lock["work"],
                "for": lock.get("for", ""),
                "instances": lock["instances"],
                "waits": round(count),
                "total": ns / 1e9,
                "mean": ns / count / 1e9 if count else 0.0,
                "p50": min(percentile(lock["histogram"], 0.5), lock["longest_ns"]) / 1e9,
                "p99": min(percentile(lock["histogram"], 0.99), lock["longest_ns"]) / 1e9,
                "longest": lock["longest_ns"] / 1e9,
                "threads": lock["threads"],
                "going_on": lock["going_on"],
                "waiting": _places(data, data["waits"], index),
                "holding": _places(data, data["holders"], index),
                "pairs": _pairs(data, index),
                "index": index,
            }
        )
    return sorted(
        result, key=lambda row: (row["work"], row["kind"] == "Thread.join", -row["total"])
    )


def _places(data, entries, index):
    """Return [(site, threads, seconds, share), ...] of one lock, the longest first."""
    found = {}
    for lock, thread, stack, _, ns in entries:
        if lock == index:
            site = site_of(data["stacks"][stack])
            threads, total = found.get(site, (set(), 0.0))
            found[site] = threads | {data["threads"][thread]["name"]}, total + ns
    whole = sum(ns for _, ns in found.values()) or 1.0
    places = [(site, sorted(who), ns / 1e9, ns / whole) for site, (who, ns) in found.items()]
    return sorted(places, key=lambda place: -place[2])


def _pairs(data, index):
    """Return [(holder, waiter, seconds), ...]: names of threads."""
    found = {}
    for lock, holder, _, waiter, _, ns in data["pairs"]:
        if lock == index:
            key = data["threads"][holder]["name"], data["threads"][waiter]["name"]
            found[key] = found.get(key, 0.0) + ns
    return sorted(((*key, ns / 1e9) for key, ns in found.items()), key=lambda pair: -pair[2])


# -- text ------------------------------------------------------------------------


def duration(seconds):
    """Return it with three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            value = seconds / size
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def place(site, directory):
    """Return file:line, the file relative to where the program ran."""
    if site is None or len(site) < 3:
        return "unknown"
    file, line, function = site
    if directory and file.startswith(directory + os.sep):
        file = file[len(directory) + 1 :]
    return f"{file}:{line} in {function}" if function != "<module>" else f"{file}:{line}"


def title(row, directory):
    """Return what a lock is called."""
    label = row["kind"] + (f" {row['name']!r}" if row["name"] else "")
    if row["made"] is not None and len(row["made"]) == 3:
        label += f" made at {place(row['made'], directory).split(' in ')[0]}"
    if row["instances"] > 1:
        label += f" ({row['instances']} of them)"
    if row.get("for"):
        label += f", for {row['for']}"
    return label


def headline(data, found):
    """Return the line that answers: which lock, held where, waited where, how long.

    Where threads hardly waited for locks, but for work, it says for which.
    """
    elapsed = data["elapsed_ns"] / 1e9
    locks = [row for row in found if not row["work"]]
    slowest = _slowest_work(data, found)
    hardly = 0.0 if slowest is None else _HARDLY * min(elapsed, slowest["total"])
    if locks and locks[0]["total"] >= hardly:
        return f"{_sentence(data, locks[0], 'held')} in {duration(elapsed)}."
    line = f"No thread waited for a lock in {duration(elapsed)}"
    if locks:
        waited = duration(sum(row["total"] for row in locks))
        line = f"Hardly any waiting for locks ({waited} in {duration(elapsed)})"
    if slowest is not None:
        line += f", but for work: {_sentence(data, slowest, 'given')}"
    return line + "."


_HARDLY = 0.05  # of the time, and of the waiting for work


def _sentence(data, row, verb):
    directory = data["directory"]
    line = title(row, directory)
    if row["holding"]:
        site, _, _, share = row["holding"][0]
        line += f": {verb} at {place(site, directory)} ({share:.0%} of the waiting)"
    if row["waiting"]:
        line += f", waited for at {place(row['waiting'][0][0], directory)}"
    threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
    return f"{line}: {duration(row['total'])} by {threads}"


def _slowest_work(data, found):
    """Return the row of the work that was waited for longest, or None.

    A thread that makes others wait while it waits itself only passes its own wait on: it counts
    for the share of the time in which it does not wait. Those that count most come first in the
    row. To wait for the end of threads is usual, and left out.
    """
    waited = {}
    for _, thread, _, _, ns in data["waits"]:
        waited[thread] = waited.get(thread, 0.0) + ns
    made, lost = {}, {}  # lock -> place -> how much it counts
    for lock, holder, held, _, where, ns in data["pairs"]:
        counts = ns * max(0.0, 1 - waited.get(holder, 0.0) / data["elapsed_ns"])
        for sums, stack in ((made, held), (lost, where)):
            sites = sums.setdefault(lock, {})
            site = site_of(data["stacks"][stack])
            sites[site] = sites.get(site, 0.0) + counts
    work = [row for row in found if row["work"] and row["kind"] != "Thread.join"]
    if not work:
        return None
    row = max(work, key=lambda row: (sum(made.get(row["index"], {}).values()), row["total"]))
    first = dict(row)
    for key, sums in (("holding", made), ("waiting", lost)):
        sites = sums.get(row["index"], {})
        first[key] = sorted(row[key], key=lambda place: -sites.get(place[0], 0.0))
    return first


_HEAD = (
    f"{'waited':>9} {'waits':>9} {'mean':>8} {'p50':>8} {'p99':>8} {'longest':>8} {'threads':>7}  "
)


def text(data, limit=10):
    """Return the report as a table."""
    found = rows(data)
    directory = data["directory"]
    lines = [headline(data, found), ""]
    for work, heading in ((False, "lock"), (True, "waiting for work")):
        part = [row for row in found if row["work"] == work]
        if not part:
            continue
        lines.append(_HEAD + heading)
        for row in part[:limit]:
            lines.append(
                f"{duration(row['total']):>9} {row['waits']:>9,} {duration(row['mean']):>8} "
                f"{duration(row['p50']):>8} {duration(row['p99']):>8} "
                f"{duration(row['longest']):>8} {row['threads']:>7}  {title(row, directory)}"
            )
            if row["going_on"]:
                lines.append(f"{'':>66}{row['going_on']} still waiting")
            held = "given at" if work else "held at"
            for label, places in (("waited at", row["waiting"]), (held, row["holding"])):
                for site, who, seconds, share in places[:3]:
                    lines.append(
                        f"{'':>11}{label:>10} {share:4.0%} {duration(seconds):>8}  "
                        f"{place(site, directory)}  [{_some(who)}]"
                    )
            for holder, waiter, seconds in row["pairs"][:3]:
                lines.append(f"{'':>16}{duration(seconds):>15}  {holder} made {waiter} wait")
        if len(part) > limit:
            lines.append(f"{'':>11}and {len(part) - limit} more")
        lines.append("")
    processes = len(data["pids"])
    lines.append(
        f"{duration(data['elapsed_ns'] / 1e9)} recorded, {data['kept']:,.0f} waits kept at a rate "
        f"of {duration(data['rate_ns'] / 1e9)}"
        + (f", {processes} processes" if processes > 1 else "")
        + f": {data['program']}"
    )
    return "\n".join(lines) + "\n"


def _some(names):
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return ", ".join(names)


def calls(stack):
    """Return "function (file:line)" of each call, outermost first, without our own."""
    lines = [line for line in reversed(stack) if not _is_inner(line[0])] or list(reversed(stack))
    return [f"{function} ({os.path.basename(file)}:{line})" for file, line, function in lines]
