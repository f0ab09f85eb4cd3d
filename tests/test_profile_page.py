"""The HTML page of a recording, in a real browser without a network; and its other formats in the
parsers that others made for them."""

import html
import json
import re
import shutil
import subprocess
import threading
import time

import pytest

import fastsync.threading as drop_in
from fastsync import profile

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def recording():
    with profile.record() as recorded:
        locks = [profile.name(drop_in.Lock(), name) for name in ("rare", "often </script>")]
        event = profile.name(drop_in.Event(), "work")

        def work(rounds):
            for _ in range(rounds):
                for lock, seconds in zip(locks, (0.0005, 0.002), strict=True):
                    with lock:
                        time.sleep(seconds)
            event.wait()

        threads = [
            threading.Thread(target=work, args=[8], name=f"worker {i}", daemon=True)
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        while not any(row["work"] and row["going_on"] for row in profile.now().locks()):
            time.sleep(0.001)
        event.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    return recorded.recording


# Clicks as a reader would, and leaves what came of it in the page.
CLICKS = """
<script>
addEventListener("load", () => {
  const found = {errors: window.errors, texts: {}};
  const column = n => [...document.querySelectorAll("#locks tbody tr.lock")]
    .map(row => row.children[n].dataset.value);
  const click = node => node.dispatchEvent(new MouseEvent("click", {bubbles: true}));
  const headings = [...document.querySelectorAll("#locks th button")];
  found.headings = headings.map(button => button.textContent);
  click(headings[1]);
  found.down = column(1).map(Number);
  click(headings[1]);
  found.up = column(1).map(Number);
  found.sorted = headings[1].parentNode.getAttribute("aria-sort");
  click(headings[0]);
  found.names = column(0);
  click(document.querySelector("#locks tbody tr.lock"));
  found.detail = document.querySelector("#locks tr.detail").textContent;
  for (const id of ["waiters", "holders"]) {
    const graph = document.getElementById(id);
    const calls = () => graph.querySelectorAll("g.call").length;
    const reset = graph.previousElementSibling.querySelector("button");
    const whole = calls();
    click(graph.querySelectorAll("g.call")[calls() - 1]);
    const part = calls();
    const shown = !reset.hidden;
    click(reset);
    found[id] = {whole, part, shown, again: calls(), hidden: reset.hidden,
                 text: graph.textContent};
  }
  found.bars = document.querySelectorAll("#time rect").length;
  found.threads = document.querySelectorAll("#threads tbody tr").length;
  found.fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  found.wider = document.documentElement.scrollWidth > innerWidth;
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""
ERRORS = """<script>
window.errors = [];
addEventListener("error", event => errors.push(event.message));
for (const kind of ["error", "warn"]) console[kind] = (...words) => errors.push(words.join(" "));
</script>"""


def open_page(folder, page, width):
    path = folder / f"page-{width}.html"
    path.write_text(
        page.replace("<head>", "<head>" + ERRORS).replace("</body>", CLICKS + "</body>"),
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'browser'}",
            f"--window-size={width},900",
            "--virtual-time-budget=5000",
            "--enable-logging=stderr",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=80,
        check=True,
    )
    console = re.findall(r".*CONSOLE.*", done.stderr)
    assert console == []
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(recording, tmp_path, width):
    recording.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = open_page(tmp_path, page, width)
    assert found["errors"] == []
    assert found["fetched"] == []
    assert not found["wider"]  # than the window
    assert found["headings"][:2] == ["lock", "waited"]
    totals = sorted(row["total"] for row in recording.locks())
    assert found["up"] == pytest.approx(totals)
    assert found["down"] == found["up"][::-1]
    assert found["sorted"] == "ascending"
    assert found["names"] == sorted(found["names"])
    assert "held at" in found["detail"] or "given at" in found["detail"]
    assert "worker 0" in found["detail"]
    for graph in (found["waiters"], found["holders"]):
        assert graph["shown"]
        assert graph["hidden"]
        assert graph["part"] < graph["whole"] == graph["again"]
        assert width < 1000 or "work (test_profile_page.py:" in graph["text"]
    assert found["bars"] > 0
    assert found["threads"] >= 4


def test_a_page_refers_to_nothing_outside(recording, tmp_path):
    recording.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?[^\s>]*""", page) == []
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert outside <= {"http://www.w3.org/2000/svg"}  # a name, not an address
