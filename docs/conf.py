"""How Sphinx makes a site of these pages: `make docs`.

The pages stay plain Markdown that reads well in a checkout; what only a site needs is added here:
the list of contents, and a reference made from the docstrings of everything public.
"""

import importlib
import inspect
import re
from pathlib import Path

import fastsync

project = "fastsync"
author = copyright = "the fastsync developers"
version = release = fastsync.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"fastsync {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_class_signature = "mixed"
nitpicky = False

HERE = Path(__file__).parent
REFERENCE = HERE / "_reference"  # made anew each time, not in the repository

# Module, title, and what the page is about. A name stands where its module is listed.
MODULES = [
    ("fastsync", "All that `fastsync` has besides the drop-ins."),
    ("fastsync.threading", "The drop-in for `threading`. What is not here is `threading`'s own."),
    ("fastsync.queue", "The drop-in for `queue`."),
    ("fastsync.channel", "Channels between threads, and `select`."),
    ("fastsync.deadlock", "Who waits for whom, and circles."),
    ("fastsync.profile", "Where threads wait, for which lock, and which thread holds it."),
]
# What the checkout has outside of this folder, and the site shows too.
PROJECT = ["CHANGELOG.md", "SECURITY.md"]
# Ours in modules that pass the standard library's names on.
DROP_INS = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


def public_names(module):
    if module.__name__ == "fastsync.threading":
        return DROP_INS
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return [name for name in names if not name.startswith("__")]


def directive(module, name):
    value = getattr(module, name)
    kind = "autofunction" if callable(value) else "autodata"
    if inspect.isclass(value):
        kind = "autoclass"
    return f"```{{eval-rst}}\n.. {kind}:: {module.__name__}.{name}\n```\n"


def write_reference(app):
    """One page a module, with every public name of it."""
    REFERENCE.mkdir(exist_ok=True)
    for page in REFERENCE.glob("*.md"):
        page.unlink()
    for module_name, about in MODULES:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            continue
        parts = [f"# {module_name}\n\n{about}\n"]
        parts += [f"## {name}\n\n{directive(module, name)}" for name in public_names(module)]
        (REFERENCE / f"{module_name}.md").write_text("\n".join(parts), encoding="utf-8")
    for name in PROJECT:
        text = (HERE.parent / name).read_text(encoding="utf-8")
        (REFERENCE / name).write_text(text, encoding="utf-8")


def toctree(caption, pages):
    return "\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n"


def add_contents(app, page, source):
    """The front page lists the others under headings: make a list of contents of it."""
    for name in PROJECT:
        source[0] = source[0].replace(f"(../{name})", f"(_reference/{name})")
    # What else is linked outside of this folder is only in a checkout.
    source[0] = re.sub(r"\[([^]]+)\]\(\.\./(?!docs/)[^)]*\)", r"\1", source[0])
    if page != "index":
        return
    sections = re.findall(r"^\*\*(.+?)\*\*\n\n((?:- .*\n(?:  .*\n)*)+)", source[0], re.MULTILINE)
    for caption, text in sections:
        source[0] += toctree(caption, re.findall(r"\]\(([\w-]+)\.md\)", text))
    pages = sorted(page.stem for page in REFERENCE.glob("*.md") if page.name not in PROJECT)
    source[0] += toctree("Reference", [f"_reference/{page}" for page in pages])
    source[0] += toctree("Project", [f"_reference/{Path(name).stem}" for name in PROJECT])


def show_examples(app, what, name, obj, options, lines):
    """An indented part of a docstring is a program, not a quotation."""
    for i in range(len(lines) - 1, 0, -1):
        begins = lines[i].startswith("    ") and not lines[i - 1].strip()
        above = next((line for line in reversed(lines[:i]) if line.strip()), "")
        if begins and not above.startswith("    ") and not above.endswith("::"):
            lines[i:i] = ["::", ""]


def setup(app):
    app.connect("autodoc-process-docstring", show_examples)
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_contents)
