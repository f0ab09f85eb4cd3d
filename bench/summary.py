"""From the rounds of a measurement to medians, ratios and goals; works on what the JSON holds."""

from statistics import median

from harness import LESS_IS_BETTER

# What the part of a case's name before the dot stands for.
FAMILIES = {
    "with": "`with`, one thread",
    "pair": "Taking and releasing, one thread",
    "event": "Event, one thread",
    "condition": "Condition, one thread",
    "new": "Creating",
    "shared": "Threads on one object",
    "private": "Threads on objects of their own",
    "hog": "A hog",
    "lockbench": "As CPython's Tools/lockbench",
    "pingpong": "Threads that take turns",
    "barrier": "Barrier",
    "wakeup": "Waking up in a crowd",
    "atomic": "Atomics",
    "counter": "Counter",
    "array": "AtomicArray",
    "mutex": "Mutex",
    "condvar": "Condvar",
    "rwlock": "RwLock",
    "sharded": "ShardedLock",
    "once": "Once and lazy values",
    "program": "Whole programs through `python -m fastsync`",
    "memory": "Memory",
    "start": "Starting",
    "size": "Size",
}

METRICS = {
    "fairness": "slowest/fastest",
    "longest": "longest wait",
    "first": "thread 0",
    "rest": "other threads",
}
MARKS = {True: "met", False: "MISSED", None: ""}


def rounds_of(result, contestant, metric="value"):
    """One number a round; None where the round failed or the metric does not apply."""
    return [one and one.get(metric) for one in result["rounds"].get(contestant, [])]


def middle(values):
    values = [value for value in values if value is not None]
    return median(values) if values else None


def spread(values):
    """Half the distance between the quartiles, as a share of the median."""
    values = sorted(value for value in values if value is not None)
    if len(values) < 2 or not median(values):
        return None
    quarter = len(values) // 4
    return (values[-1 - quarter] - values[quarter]) / 2 / median(values)


def ratio(result, contestant, other, metric="value"):
    """The median over the rounds of one contestant's number to another's in the same round."""
    pairs = zip(
        rounds_of(result, contestant, metric), rounds_of(result, other, metric), strict=False
    )
    return middle([a / b for a, b in pairs if a is not None and b])


def best_peer(result, metric="value"):
    peers = [name for name, rank in result["ranks"].items() if rank == "peer"]
    known = {name: middle(rounds_of(result, name, metric)) for name in peers}
    known = {name: value for name, value in known.items() if value is not None}
    if not known:
        return None
    return (min if lower_wins(result, metric) else max)(known, key=known.get)


def lower_wins(result, metric="value"):
    return metric == "longest" or (metric == "value" and LESS_IS_BETTER[result["unit"]])


def judge(result, goal):
    """What became of a goal: (number or None, met or None, whom it is compared with)."""
    other = goal["of"]
    if other == "baseline":
        other = result["baseline"]
    elif other == "best peer":
        other = best_peer(result, goal["metric"])
    if goal["of"] is None:
        reached = middle(rounds_of(result, goal["who"], goal["metric"]))
    else:
        reached = ratio(result, goal["who"], other, goal["metric"]) if other else None
    if reached is None:
        return None, None, other
    limit = goal["limit"]
    met = reached <= limit if lower_wins(result, goal["metric"]) else reached >= limit
    return reached, met, other


def goals_of(result):
    """The goals of this case at this number of threads."""
    return [
        goal
        for goal in result["goals"]
        if goal["threads"] in (None, result["threads"]) and goal["gil"] == result["gil"]
    ]


def sign(result, metric):
    return "≤" if lower_wins(result, metric) else "≥"


# -- for people ------------------------------------------------------------------


def significant(value, digits=3):
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def human(value, unit):
    """1.23e-08 s as "12.3 ns", 5100000 /s as "5.1 M/s"."""
    if value is None:
        return "-"
    if unit == "B":
        return significant(value, 4) + " B" if value < 1e4 else f"{value / 1e6:.2f} MB"
    scales = (
        [(1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")]
        if unit == "s"
        else [(1e6, "M"), (1e3, "k"), (1, "")]
    )
    scale, name = next((pair for pair in scales if value >= pair[0] * 0.9995), scales[-1])
    number = significant(value / scale)
    return f"{number} {name}" if unit == "s" else f"{number} {name}{unit}".rstrip()


def percent(value):
    return "" if value is None else f"±{value * 100:.0f}%"


def two(value):
    if value is None:
        return ""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def goal_number(result, goal, value):
    """A limit or what was reached: a ratio, or, compared with nobody, a quantity."""
    if goal["of"] or goal["metric"] == "fairness":
        return two(value)
    return human(value, "s" if goal["metric"] == "longest" else result["unit"])


def goal_text(result, goal):
    reached, met, other = judge(result, goal)
    what = "" if goal["metric"] == "value" else METRICS[goal["metric"]] + " "
    than = f" of {other}" if goal["of"] else ""
    limit = f"{sign(result, goal['metric'])} {goal_number(result, goal, goal['limit'])}{than}"
    if reached is None:
        return f"{what}goal {limit}: not measured"
    shown = goal_number(result, goal, reached)
    who = "" if goal["who"] == "fastsync" else goal["who"] + ": "
    return f"{who}{what}{shown} (goal {limit}): {MARKS[met]}"


def label(result):
    threads = result["threads"]
    return result["case"] + (f" x{threads}" if threads else "")


def rows(result):
    """A row a contestant: its median, spread, ratios and, of threads, fairness."""
    peer = best_peer(result)
    for name in result["rounds"]:
        values = rounds_of(result, name)
        if middle(values) is None:
            continue
        extras = []
        if result["threads"]:
            extras = [
                two(middle(rounds_of(result, name, "fairness"))),
                two(middle(rounds_of(result, name, "jain"))),
                human(max(filter(None, rounds_of(result, name, "longest")), default=None), "s"),
            ]
        yield [
            name,
            human(middle(values), result["unit"]),
            percent(spread(values)),
            two(ratio(result, name, result["baseline"])),
            two(ratio(result, name, peer)) if peer else "",
            *extras,
        ]


HEAD = ["", "median", "spread", "vs base", "vs peer"]
HEAD_THREADS = [*HEAD, "slow/fast", "Jain", "longest"]


def table(result):
    """The lines that the terminal shows for one result."""
    head = [label(result), *(HEAD_THREADS if result["threads"] else HEAD)[1:]]
    lines = [head, *rows(result)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    shown += [f"  {goal_text(result, goal)}" for goal in goals_of(result)]
    shown += [f"  skipped: {name} ({why})" for name, why in result["skipped"].items()]
    if result["disturbed"]:
        shown.append(
            f"  {result['disturbed']} of its measurements were disturbed by other programs"
        )
    return shown
