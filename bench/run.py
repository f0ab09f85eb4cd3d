#!/usr/bin/env python3
"""Measure fastsync beside the standard library and other packages: see bench/README.md.

python bench/run.py --case lock --threads 2,8 --json new.json --compare old.json
"""

import argparse
import fnmatch
import importlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import machine
import summary

HERE = Path(__file__).resolve().parent
FORMAT = 1


def say(text=""):
    print(text, flush=True)


def progress(text):
    """One line that overwrites itself, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# -- cases ----------------------------------------------------------------------


def load_cases():
    cases = []
    for path in sorted(HERE.glob("cases_*.py")):
        for case in importlib.import_module(path.stem).CASES:
            case.module = path.stem
            cases.append(case)
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), "two cases have the same name"
    return cases


def wanted(case, patterns):
    return not patterns or any(
        fnmatch.fnmatch(case.name, pattern) or case.name.startswith(pattern + ".")
        for pattern in patterns
    )


def thread_counts(case, arguments):
    """The numbers of threads to run a case at; (None,) where it has none."""
    if arguments.tiny or case.kind != "threads":
        return case.threads[:1]
    return arguments.threads or case.threads


# -- one measurement ------------------------------------------------------------


def start_worker(case, contestants, options):
    """Run worker.py: (values, skipped); a worker that dies or hangs is a reason to skip."""
    request = {
        "module": case.module,
        "case": case.name,
        "contestants": contestants,
        "options": options,
    }
    command = [sys.executable, str(HERE / "worker.py"), json.dumps(request)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=options["limit"]
            )
        except subprocess.TimeoutExpired:
            return {}, dict.fromkeys(contestants, f"no end after {options['limit']:.0f} s"), None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {}, dict.fromkeys(contestants, reason), None
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return answer["values"], answer["skipped"], answer["gil"]


def groups_of(case, contestants):
    """Who is measured in one process: all alternate where that is safe, else one by one."""
    return [contestants] if case.kind == "op" else [[name] for name in contestants]


def measure(case, threads, arguments):
    """All rounds of one case at one number of threads: what the JSON keeps of it."""
    rounds = 1 if arguments.tiny else min(arguments.rounds, case.rounds or arguments.rounds)
    options = {
        "threads": threads,
        "seconds": arguments.seconds,
        "samples": arguments.samples,
        "tiny": arguments.tiny,
        "limit": 60 if arguments.tiny else arguments.seconds * 20 + 120,
    }
    result = {
        "case": case.name,
        "title": case.title,
        "kind": case.kind,
        "unit": case.unit,
        "threads": threads,
        "gil": machine.gil_is_on(),
        "baseline": case.baseline,
        "ranks": {name: case.rank(name) for name in case.contestants},
        "goals": [asdict(goal) for goal in case.goals],
        "rounds": {name: [] for name in case.contestants},
        "skipped": {},
        "disturbed": 0,
    }
    for number in range(rounds):
        left = [name for name in case.contestants if name not in result["skipped"]]
        for group in groups_of(case, left):
            progress(f"{summary.label(result)}: round {number + 1} of {rounds}, {', '.join(group)}")
            machine.wait_until_quiet(arguments.patience)
            watch = machine.Watch()
            values, skipped, _ = start_worker(case, group, options)
            result["disturbed"] += watch.others() > machine.QUIET
            result["skipped"].update(skipped)
            for name in group:
                result["rounds"][name].append(values.get(name))
    progress("")
    return result


# -- comparing ------------------------------------------------------------------


def compare(results, path):
    """What has changed since another run, by median; ratios, so that less is not always better."""
    old = {
        summary.label(result): result for result in json.loads(Path(path).read_text())["results"]
    }
    say(f"\nChanged since {path} (new / old):")
    for result in results:
        before = old.get(summary.label(result))
        for name in result["rounds"] if before else ():
            new = summary.middle(summary.rounds_of(result, name))
            then = summary.middle(summary.rounds_of(before, name))
            if new and then:
                base = summary.ratio(result, name, result["baseline"])
                base_then = summary.ratio(before, name, result["baseline"])
                say(
                    f"  {summary.label(result):32} {name:24} {new / then:6.2f}   "
                    f"vs base {summary.two(base_then)} -> {summary.two(base)}"
                )


# -- the run --------------------------------------------------------------------


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="only these cases: a name, the part before a dot, or a pattern; repeatable",
    )
    parser.add_argument("--threads", metavar="N,N", help="thread counts of the contended cases")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a contended measurement")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each contestant")
    parser.add_argument("--samples", type=int, default=50, help="of an operation in a process")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for quiet")
    parser.add_argument("--note", metavar="TEXT", help="what the report shall say of this run")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    parser.add_argument("--compare", metavar="FILE", help="the JSON of an earlier run")
    parser.add_argument("--plots", metavar="DIR", help="draw plots (needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="few rounds: a first impression")
    parser.add_argument("--tiny", action="store_true", help="run each case once, to try its code")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    arguments = parser.parse_args(argv)
    arguments.threads = [int(n) for n in arguments.threads.split(",")] if arguments.threads else []
    if arguments.quick:
        arguments.rounds, arguments.samples, arguments.seconds = 3, 20, 0.2
    if arguments.tiny:
        arguments.seconds = 0.01
    return arguments


def fastsync_version():
    try:
        from importlib.metadata import version

        return version("fastsync-threading")
    except ImportError:
        return None


def introduce(cases, tiny):
    about = machine.describe()
    share, load, names = (0.0, 0.0, []) if tiny else machine.check_quiet()
    say(f"{about['processor']}, {about['cores']} cores; Python {about['python'].split(' (')[0]}")
    say(f"built {about['build']}; GIL {'on' if about['gil'] else 'off'}; {len(cases)} cases")
    if tiny:
        say("every case runs once, to try its code: the numbers mean nothing")
    elif share > machine.QUIET or load > 0.5 * about["cores"]:
        say(
            f"WARNING: the machine is busy (load {load:.1f}, others use {share:.0%} of it"
            f"{': ' + ', '.join(names[:6]) if names else ''}); "
            "contended numbers taken now are unreliable"
        )
    return {**about, "fastsync": fastsync_version(), "load": load, "others": share}


def main(argv=None):
    arguments = parse(argv)
    cases = [case for case in load_cases() if wanted(case, arguments.case)]
    if arguments.list:
        say("\n".join(f"{case.name:32} {', '.join(case.contestants)}" for case in cases))
        return 0
    if not cases:
        say("no such case; --list names them")
        return 2
    started = time.time()
    data = {
        "format": FORMAT,
        "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
        "command": " ".join(argv if argv is not None else sys.argv[1:]),
        "note": arguments.note,
        "machine": introduce(cases, arguments.tiny),
        "results": [],
    }
    results = data["results"]
    for case in cases:
        for threads in thread_counts(case, arguments):
            results.append(measure(case, threads, arguments))
            say("\n" + "\n".join(summary.table(results[-1])))
            if arguments.json:  # each time, so that a run that is stopped leaves what it has
                Path(arguments.json).write_text(json.dumps(data, indent=1) + "\n")
    say(f"\n{len(results)} results in {time.time() - started:.0f} s")
    if arguments.compare:
        compare(results, arguments.compare)
    if arguments.plots:
        import plots

        plots.draw(data, arguments.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
