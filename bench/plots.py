"""Plots of a run's JSON, as SVG and PNG: throughput, time an operation, memory."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import summary

COLORS = {"ours": "#d1495b", "baseline": "#30638e"}
OTHERS = ["#8d96a3", "#edae49", "#66a182", "#9d79bc", "#7f5539"]
plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "svg.hashsalt": "fastsync",  # the same data gives the same file
    }
)


def colors_of(contestants, ranks):
    rest = iter(OTHERS * 3)
    shades = iter([COLORS["ours"], "#e8949f", "#f4c6cc"])
    chosen = {}
    for name in contestants:
        rank = ranks.get(name)
        chosen[name] = next(shades) if rank == "ours" else COLORS.get(rank) or next(rest)
    return chosen


def save(figure, folder, name):
    for kind in "svg", "png":
        # Without the date, so that files change only with what they show.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(folder / f"{name}.{kind}", dpi=130, metadata=metadata, bbox_inches="tight")
    plt.close(figure)


def throughput(results, folder):
    """One figure a contended case: operations a second above, slowest to fastest below."""
    cases = {}
    for result in results:
        if result["kind"] == "threads":
            cases.setdefault(result["case"], []).append(result)
    for case, series in cases.items():
        if len(series) > 2:
            draw_throughput(case, series, folder)


def draw_throughput(case, series, folder):
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(6, 4.6), sharex=True, height_ratios=[3, 2], layout="constrained"
    )
    ranks = series[0]["ranks"]
    names = [name for name in ranks if any(points(series, name, "value"))]
    for name, color in colors_of(names, ranks).items():
        style = {"color": color, "marker": "o", "markersize": 4, "label": name}
        xs = [result["threads"] for result in series]
        values = [value and value / 1e6 for value in points(series, name, "value")]
        top.plot(xs, [v if v else float("nan") for v in values], **style)
        fairness = points(series, name, "fairness")
        bottom.plot(xs, [v if v is not None else float("nan") for v in fairness], **style)
    top.set(ylabel="million operations a second", title=plain(series[0]["title"]) or case)
    bottom.set(ylabel="slowest thread / fastest", xlabel="threads", xscale="log", ylim=(0, 1.05))
    top.set_ylim(bottom=0)
    counts = [result["threads"] for result in series]
    bottom.set_xticks(counts, [str(count) for count in counts])
    bottom.minorticks_off()
    for axes in top, bottom:
        axes.grid(alpha=0.25)
    top.legend(frameon=False, loc="best")
    save(figure, folder, "threads-" + case.replace(".", "-"))


def points(series, name, metric):
    return [summary.middle(summary.rounds_of(result, name, metric)) for result in series]


def plain(text):
    return text.replace("`", "")


def bars(results, folder, name, title, unit, chosen):
    """Groups of horizontal bars, one group a case; a logarithmic axis, as peers differ widely."""
    rows = []
    for result in filter(chosen, results):
        values = {
            contestant: summary.middle(summary.rounds_of(result, contestant))
            for contestant in result["rounds"]
        }
        colors = colors_of(values, result["ranks"])
        shown = [(who, v, colors[who]) for who, v in values.items() if v]
        if shown:
            rows.append((plain(result["title"]) or result["case"], result["unit"], shown))
    if not rows:
        return
    height = sum(len(shown) for _, _, shown in rows) * 0.2 + len(rows) * 0.22 + 0.7
    figure, axes = plt.subplots(figsize=(7.4, height), layout="constrained")
    y, ticks = 0.0, []
    scale = 1e9 if unit == "nanoseconds" else 1
    low = scale * min(value for _, _, shown in rows for _, value, _ in shown)
    for label, value_unit, shown in rows:
        ticks.append((y + (len(shown) - 1) / 2, label))
        for who, value, color in shown:
            axes.barh(y, value * scale, height=0.86, color=color)
            note = f" {summary.human(value, value_unit)}  {who}"
            axes.text(value * scale, y, note, va="center", fontsize=7)
            y += 1
        y += 1.1
    axes.set_xscale("log")
    axes.set_xlim(left=low / 3)
    axes.set_xlim(right=axes.get_xlim()[1] * 8)
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(title=title, xlabel=f"{unit}, logarithmic")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    save(figure, folder, name)


def crowd(results, folder):
    """Wake-up time against the number of threads that sleep meanwhile."""
    series = [result for result in results if result["case"].startswith("wakeup.")]
    if len(series) < 2:
        return
    series.sort(key=lambda result: int(result["case"].partition(".")[2]))
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    xs = [int(result["case"].partition(".")[2]) for result in series]
    for name, color in colors_of(series[0]["ranks"], series[0]["ranks"]).items():
        values = [value and value * 1e6 for value in points(series, name, "value")]
        axes.plot(xs, values, color=color, marker="o", markersize=4, label=name)
    axes.set(
        xscale="log",
        xlabel="other threads parked, each on a lock of its own",
        ylabel="round trip of two threads, us",
        title="Wake-up time as sleepers grow",
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save(figure, folder, "wakeup")


def draw(data, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = data["results"]
    throughput(results, folder)
    crowd(results, folder)
    families = {}
    for result in results:
        if result["kind"] == "op":
            families.setdefault(result["case"].partition(".")[0], []).append(result)
    for family, members in families.items():
        title = plain(summary.FAMILIES.get(family, family))
        bars(members, folder, f"time-{family}", title, "nanoseconds", lambda _: True)
    bars(
        results,
        folder,
        "time-waiting",
        "Threads that wait for one another",
        "nanoseconds",
        lambda result: result["case"].partition(".")[0] in ("pingpong", "barrier"),
    )
    bars(
        results,
        folder,
        "memory",
        "Resident memory an object, over a million of them",
        "bytes",
        lambda result: result["case"].startswith("memory."),
    )
    bars(
        results,
        folder,
        "programs",
        "Whole programs, unchanged (more is better)",
        "a second",
        lambda result: result["case"].startswith("program."),
    )
