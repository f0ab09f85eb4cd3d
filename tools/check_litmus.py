#!/usr/bin/env python3
"""Check the protocols of tests/litmus with herd7, on two memory models: RC11 and AArch64.

A protocol is a few threads, and an outcome that must never be. Each order that the code needs has
a weaker one behind a `!`: with that in its place the outcome must be there, in one of the models
at least. An order that is stronger than needed has the weaker one behind a `~`, and why; with that
the outcome must still never be.

Every line of a thread is one of these, `order` being C11's:

    store VARIABLE NUMBER ORDER
    [REGISTER =] load VARIABLE ORDER
    [REGISTER =] cas VARIABLE EXPECTED NEW ORDER     the register gets what was there
    [REGISTER =] swap VARIABLE NUMBER ORDER          the same
    [REGISTER =] add VARIABLE NUMBER ORDER           the same
    if REGISTER == NUMBER                            what is indented below it
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = ROOT / "tests" / "litmus"
DOCUMENT = ROOT / "docs" / "memory-ordering.md"
BEGIN, END = "<!-- tools/check_litmus.py writes this table -->\n", "<!-- end of the table -->\n"
UNSET = 99  # what a register says that was never written

LINE = re.compile(
    r"(?P<indent> *)(?:(?P<register>\w+) = )?(?P<op>store|load|cas|swap|add) (?P<variable>\w+)"
    r"(?P<numbers>(?: -?\d+)*) (?P<order>\w+)(?P<marks>.*)"
)


class Operation:
    def __init__(self, number, match):
        self.number = number
        self.register = match["register"] or f"unused{number}"
        self.op = match["op"]
        self.variable = "v_" + match["variable"]  # some names are keywords of herd7
        self.numbers = [int(word) for word in match["numbers"].split()]
        self.order = match["order"]
        self.needed = re.findall(r"! (\w+)", match["marks"])
        self.spare = re.findall(r"~ (\w+) ([^!~]+)", match["marks"])


class Protocol:
    def __init__(self, path):
        self.name = path.stem
        self.comment, self.init, self.threads = [], {}, {}
        self.operations = []
        for number, line in enumerate(path.read_text().splitlines()):
            words = line.split()
            if line.startswith("# In: "):
                self.functions = line[6:]
            elif line.startswith("#"):
                self.comment.append(line[2:])
            elif words[0] == "init":
                self.init = dict(f"v_{word}".split("=") for word in words[1:])
            elif words[0] == "thread":
                body = self.threads[words[1]] = []
            elif words[0] == "never":
                self.never = [word.split("=") for word in words[1:]]
            elif words[0] == "if":
                body.append((len(line) - len(line.lstrip()), ("if", words[1], int(words[3]))))
            else:
                match = LINE.fullmatch(line)
                if match is None:
                    raise SystemExit(f"{path.name}:{number + 1}: {line!r} is no operation")
                operation = Operation(number, match)
                self.operations.append(operation)
                body.append((len(match["indent"]), operation))
        self.variables = sorted({o.variable for o in self.operations})

    def changes(self):
        """(operation, weaker order, "" or why it could do as well)."""
        for operation in self.operations:
            for order in operation.needed:
                yield operation, order, ""
            for order, why in operation.spare:
                yield operation, order, why.strip()

    def registers(self, thread):
        found = [item.register for _, item in self.threads[thread] if isinstance(item, Operation)]
        return list(dict.fromkeys(found))

    def condition(self, names):
        terms = []
        for place, value in self.never:
            thread, register = place.split(".")
            terms.append(f"{list(self.threads).index(thread)}:{names(thread, register)}={value}")
        return " /\\ ".join(terms)


def nested(body, open_block, close_block, line):
    """Go through a thread's body and close what an indentation has opened."""
    blocks = []
    for indent, item in body:
        while blocks and indent <= blocks[-1]:
            blocks.pop()
            close_block()
        if isinstance(item, Operation):
            line(item)
        else:
            open_block(item)
            blocks.append(indent)
    for _ in blocks:
        close_block()


class C11:
    model, label = "rc11.cat", "RC11"

    def write(self, protocol, order_of):
        cells = [f"e{o.number}" for o in protocol.operations if o.op == "cas"]
        init = dict(protocol.init)
        for operation in protocol.operations:
            if operation.op == "cas":
                init[f"e{operation.number}"] = operation.numbers[0]
        text = [f"C {protocol.name}", "{ " + " ".join(f"{k}={v};" for k, v in init.items()) + " }"]
        for index, (thread, body) in enumerate(protocol.threads.items()):
            parameters = [f"atomic_int* {name}" for name in protocol.variables]
            parameters += [f"int* {name}" for name in cells]
            text.append(f"P{index}({', '.join(parameters)}) {{")
            text += [f"  int r{name} = {UNSET};" for name in protocol.registers(thread)]
            nested(
                body,
                lambda item, text=text: text.append(f"  if (r{item[1]} == {item[2]}) {{"),
                lambda text=text: text.append("  }"),
                lambda o, text=text: text.extend(self.operation(o, order_of(o))),
            )
            text.append("}")
        text.append(f"exists ({protocol.condition(lambda _, register: 'r' + register)})")
        return "\n".join(text)

    def operation(self, o, order):
        order = f"memory_order_{order}"
        if o.op == "store":
            return [f"  atomic_store_explicit({o.variable}, {o.numbers[0]}, {order});"]
        if o.op == "load":
            return [f"  r{o.register} = atomic_load_explicit({o.variable}, {order});"]
        if o.op == "cas":
            call = f"atomic_compare_exchange_strong_explicit({o.variable}, e{o.number}, "
            call += f"{o.numbers[1]}, {order}, memory_order_relaxed)"
            return [f"  int c{o.number} = {call};", f"  r{o.register} = *e{o.number};"]
        call = "atomic_exchange_explicit" if o.op == "swap" else "atomic_fetch_add_explicit"
        return [f"  r{o.register} = {call}({o.variable}, {o.numbers[0]}, {order});"]


# The instructions of AArch64 for each order.
LOADS = {"relaxed": "LDR", "acquire": "LDAPR", "seq_cst": "LDAR"}
STORES = {"relaxed": "STR", "release": "STLR", "seq_cst": "STLR"}
SUFFIX = {"relaxed": "", "acquire": "A", "release": "L", "acq_rel": "AL", "seq_cst": "AL"}


class AArch64:
    """As compilers translate C11 for ARMv8.1 and later, with the weakest of what they may use."""

    model, label = "aarch64.cat", "AArch64"

    def write(self, protocol, order_of):
        init = [f"{name}={value};" for name, value in protocol.init.items()]
        columns = []
        for index, (thread, body) in enumerate(protocol.threads.items()):
            self.addresses = {v: f"X{i}" for i, v in enumerate(protocol.variables)}
            first = len(self.addresses)
            names = protocol.registers(thread)
            self.values = {name: first + i for i, name in enumerate(names)}
            self.spare = first + len(names)
            init += [f"{index}:{x}={name};" for name, x in self.addresses.items()]
            init += [f"{index}:X{x}={UNSET};" for x in self.values.values()]
            column, labels = [], []

            def open_block(item, column=column, labels=labels, index=index):
                labels.append(f"L{index}{len(column)}")
                column.append(f"CMP W{self.values[item[1]]},#{item[2]}")
                column.append(f"B.NE {labels[-1]}")

            nested(
                body,
                open_block,
                lambda column=column, labels=labels: column.append(f"{labels.pop()}:"),
                lambda o, column=column: column.extend(self.operation(o, order_of(o))),
            )
            columns.append(column)
        height = max(map(len, columns))
        rows = [[c[i] if i < len(c) else "" for c in columns] for i in range(height)]
        heads = [f"P{i}" for i in range(len(columns))]
        text = [f"AArch64 {protocol.name}", "{ " + " ".join(init) + " }"]
        text += [" | ".join(row) + " ;" for row in [heads, *rows]]

        def name_of(thread, register):
            place = len(protocol.variables) + protocol.registers(thread).index(register)
            return f"X{place}"

        text.append(f"exists ({protocol.condition(name_of)})")
        return "\n".join(text)

    def operation(self, o, order):
        at, value = f"[{self.addresses[o.variable]}]", self.values[o.register]
        suffix, spare = SUFFIX[order], self.spare
        if o.op == "store":
            return [f"MOV W{spare},#{o.numbers[0]}", f"{STORES[order]} W{spare},{at}"]
        if o.op == "load":
            return [f"{LOADS[order]} W{value},{at}"]
        if o.op == "cas":
            lines = [f"MOV W{value},#{o.numbers[0]}", f"MOV W{spare},#{o.numbers[1]}"]
            return [*lines, f"CAS{suffix} W{value},W{spare},{at}"]
        name = "SWP" if o.op == "swap" else "LDADD"
        return [f"MOV W{spare},#{o.numbers[0]}", f"{name}{suffix} W{spare},W{value},{at}"]


def find_herd():
    """The command of herd7; None where there is none."""
    named = os.environ.get("FASTSYNC_HERD7") or shutil.which("herd7")
    if named:
        return [named]
    cache = os.environ.get("FASTSYNC_CACHE") or Path.home() / ".cache" / "fastsync"
    unpacked = Path(cache) / "herdtools7"
    if not (unpacked / "usr" / "bin" / "herd7").exists():
        return None
    library = unpacked / "usr" / "lib" / "x86_64-linux-gnu"
    command = [library / "ld-linux-x86-64.so.2", "--library-path", library]
    command += [unpacked / "usr" / "bin" / "herd7"]
    return [*command, "-set-libdir", unpacked / "usr" / "share" / "herdtools7" / "herd"]


def possible(herd, language, protocol, change=None):
    """Whether the outcome can be, with at most one order changed."""

    def order_of(operation):
        return change[1] if change and change[0] is operation else operation.order

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{protocol.name}.litmus")
        path.write_text(language().write(protocol, order_of) + "\n")
        done = subprocess.run(
            [*herd, "-speedcheck", "true", "-model", language.model, path],
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^Observation \S+ (\w+) ", done.stdout, re.M)
    if found is None:
        raise SystemExit(f"{path.read_text() if path.exists() else ''}{done.stdout}{done.stderr}")
    return found[1] != "Never"


def check(herd, protocol):
    """Its complaints, and its rows of the table."""
    complaints, rows = [], []
    for language in (C11, AArch64):
        if possible(herd, language, protocol):
            complaints.append(f"{protocol.name}: the outcome can be on {language.label}")
    for change in protocol.changes():
        operation, order, why = change
        shown = [
            language.label
            for language in (C11, AArch64)
            if possible(herd, language, protocol, change)
        ]
        place = f"{operation.op} {operation.variable[2:]}: {operation.order} as {order}"
        if bool(shown) == bool(why):
            verb = f"matters on {', '.join(shown)}" if why else "is missed"
            complaints.append(f"{protocol.name}: {place} {verb}")
        rows.append((place, " and ".join(shown) or f"no: {why}"))
    return complaints, rows


def table(protocols, results):
    lines = ["| protocol | in | order weakened | the bad outcome shows |", "|---|---|---|---|"]
    for protocol, (_, rows) in zip(protocols, results, strict=True):
        for number, (place, shown) in enumerate(rows):
            name = f"`{protocol.name}`" if number == 0 else ""
            functions = f"`{protocol.functions}`".replace(", ", "`, `") if number == 0 else ""
            lines.append(f"| {name} | {functions} | {place} | {shown} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="protocols; all of them without")
    parser.add_argument("--write", action="store_true", help="write the table of the document")
    parser.add_argument("--if-there", action="store_true", help="without herd7, only say so")
    arguments = parser.parse_args()
    herd = find_herd()
    if herd is None:
        print("herd7 is not there: tools/get_herd.sh gets it")
        sys.exit(not arguments.if_there)
    paths = sorted(PROTOCOLS.glob("*.txt"))
    protocols = [Protocol(p) for p in paths if not arguments.names or p.stem in arguments.names]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda protocol: check(herd, protocol), protocols))
    complaints = [line for lines, _ in results for line in lines]
    if not arguments.names:
        new = table(protocols, results)
        text = DOCUMENT.read_text()
        head, _, rest = text.partition(BEGIN)
        if arguments.write:
            DOCUMENT.write_text(head + BEGIN + "\n" + new + "\n" + END + rest.partition(END)[2])
        elif rest.partition(END)[0].strip() != new.strip():
            complaints.append("the table in docs/memory-ordering.md is another one: --write")
    changes = sum(len(rows) for _, rows in results)
    print(f"{len(protocols)} protocols never fail; {changes} weaker orders were tried")
    for line in complaints:
        print(line)
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
