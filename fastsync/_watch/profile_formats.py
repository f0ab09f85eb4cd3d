"""Recordings of fastsync.profile for the viewers people have: collapsed, speedscope, pprof."""

import gzip
import json

from fastsync._watch.profile_report import calls, title
from fastsync.profile import site_of


def _title(data, index):
    lock = data["locks"][index]
    row = {**lock, "made": site_of(lock["made"])}
    label = title(row, data["directory"])
    return f"work: {label}" if lock["work"] else label


def collapsed(data):
    """Return lines "caller;callee;lock microseconds" of the waiters: for flamegraph.pl and such."""
    sums = {}
    for lock, _, stack, _, ns in data["waits"]:
        frames = [*calls(data["stacks"][stack]), _title(data, lock)]
        key = ";".join(frame.replace(";", ",").replace("\n", " ") for frame in frames)
        sums[key] = sums.get(key, 0.0) + ns / 1e3
    return "".join(f"{key} {round(value)}\n" for key, value in sorted(sums.items())).encode()


def speedscope(data):
    """Return a file for www.speedscope.app: a profile of the waiters, one of the holders."""
    frames, index = [], {}

    def frame(key, **fields):
        if key not in index:
            index[key] = len(frames)
            frames.append(fields)
        return index[key]

    def profile(name, entries):
        samples, weights = [], []
        for lock, thread, stack, _, ns in entries:
            who = data["threads"][thread]
            sample = [frame(("thread", thread), name=f"{who['name']} ({who['pid']})")]
            for file, line, function in reversed(data["stacks"][stack]):
                sample.append(frame((file, line, function), name=function, file=file, line=line))
            label = _title(data, lock)
            sample.append(frame(("lock", label), name=label))
            samples.append(sample)
            weights.append(round(ns))
        return {
            "type": "sampled",
            "name": name,
            "unit": "nanoseconds",
            "startValue": 0,
            "endValue": sum(weights),
            "samples": samples,
            "weights": weights,
        }

    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": data["program"],
        "exporter": "fastsync",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": [
            profile("waiting: who lost time", data["waits"]),
            profile("holding: who made them wait", data["holders"]),
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


# -- pprof: profile.proto by hand -------------------------------------------------


def _varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field, value):
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field, value):
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _packed(field, values):
    return _bytes(field, b"".join(_varint(value) for value in values)) if values else b""


def pprof(data):
    """Return a gzipped profile.proto of the waiters, as Go's block profile: contentions and delay.

    Labels of each sample: thread, lock. `go tool pprof` and those who read its files take it.
    """
    strings = {"": 0}
    functions, locations = {}, {}

    def string(text):
        return strings.setdefault(text, len(strings))

    def location(file, line, function):
        key = file, line, function
        if key not in locations:
            name = functions.setdefault((file, function), len(functions) + 1)
            locations[key] = len(locations) + 1, name
        return locations[key][0]

    def value_type(kind, unit):
        return _number(1, string(kind)) + _number(2, string(unit))

    out = [
        _bytes(1, value_type("contentions", "count")),
        _bytes(1, value_type("delay", "nanoseconds")),
    ]
    for lock, thread, stack, count, ns in data["waits"]:
        lines = [location(*line) for line in data["stacks"][stack]]
        label = _title(data, lock)
        lines.insert(0, location("", 0, label))
        sample = _packed(1, lines) + _packed(2, [round(count), round(ns)])
        for key, text in (("thread", data["threads"][thread]["name"]), ("lock", label)):
            sample += _bytes(3, _number(1, string(key)) + _number(2, string(text)))
        out.append(_bytes(2, sample))
    for (_, line, _), (number, function) in locations.items():
        where = _number(1, function) + _number(2, line)
        out.append(_bytes(4, _number(1, number) + _bytes(4, where)))
    for (file, function), number in functions.items():
        name, path = string(function), string(file)
        out.append(
            _bytes(5, _number(1, number) + _number(2, name) + _number(3, name) + _number(4, path))
        )
    period = value_type("contentions", "count")
    tail = [
        _number(9, round(data["started"] * 1e9)),
        _number(10, data["elapsed_ns"]),
        _bytes(11, period),
        _number(12, 1),
    ]
    table = [_bytes(6, text.encode()) for text in strings]
    return gzip.compress(b"".join(out + table + tail), mtime=0)
