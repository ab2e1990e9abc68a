"""Links between the chapters and the pages of the library, both ways, from what chapters import."""

import ast
import json
import re
import sys
from inspect import ismodule
from operator import attrgetter
from pathlib import Path
from pydoc import locate

from docutils import nodes
from sphinx import addnodes
from sphinx.util.nodes import make_refnode


def names_used(notebook):
    """What a notebook takes from the library's modules, by name."""
    cells = [
        cell
        for cell in json.loads(notebook.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.M))
    bound = {"paperrepro": "paperrepro"}
    for node in ast.walk(tree):
        module = isinstance(node, ast.ImportFrom) and node.module or ""
        if module.startswith("paperrepro"):
            bound |= {
                a.asname or a.name: f"{module}.{a.name}" for a in node.names
            }
    modules = {
        short for short, name in bound.items() if ismodule(locate(name))
    }
    members = {
        f"{bound[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and getattr(node.value, "id", None) in modules
    }
    return sorted(
        members
        | {name for short, name in bound.items() if short not in modules}
    )


class Library:
    """The documented objects, by their name, by their other names, and by the chapter."""

    def __init__(self, app):
        found = app.env.domaindata["py"]["objects"].items()
        self.objects = {
            name: entry
            for name, entry in found
            if not (entry.aliased or entry.objtype == "module")
        }
        values = {name: locate(name) for name in self.objects}
        plain = str | int | None  # equal ones are one object
        self.names = {
            id(v): name
            for name, v in values.items()
            if not isinstance(v, plain)
        }
        self.chapters = {
            path.stem: sorted(
                {self.name_of(name) for name in names_used(path)} - {None}
            )
            for path in sorted(Path(app.srcdir).glob("*.ipynb"))
        }

    def name_of(self, name):
        """The name under which an importable object is documented; None where it is not."""
        return (
            name
            if name in self.objects
            else self.names.get(id(locate(name)))
        )

    def find(self, text):
        """The object that an inline code names in full or, looking like a name, without doubt."""
        name = text.removesuffix("()")
        if name.startswith("paperrepro."):
            return self.name_of(name)
        if re.fullmatch(r"\w+(\.\w+)*", name) and re.search(
            r"[._]|^[A-Z]", name
        ):
            ends = [
                full for full in self.objects if full.endswith(f".{name}")
            ]
            return ends[0] if len(ends) == 1 else None
        return None


def link(app, doctree, page):
    if not hasattr(app, "library"):
        app.library = Library(app)
    library = app.library

    def to(name, content):
        entry = library.objects[name]
        return make_refnode(
            app.builder, page, entry.docname, entry.node_id, content, name
        )

    for literal in list(doctree.findall(nodes.literal)):
        name = library.find(literal.astext())
        if name and not isinstance(
            literal.parent, (nodes.reference, nodes.title)
        ):
            literal.replace_self(to(name, literal.deepcopy()))
    names = library.chapters.get(page)
    if names:
        title = nodes.title("", "Used here of the library")
        body = nodes.paragraph()
        for name in names:
            short = name.removeprefix("paperrepro.")
            body += [
                nodes.Text(", ") if len(body) else nodes.Text(""),
                to(name, nodes.literal("", short)),
            ]
        chapter = next(doctree.findall(nodes.section))
        chapter += nodes.admonition(
            "", title, body, classes=["seealso", "library-used", "dropdown"]
        )
    for signature in doctree.findall(addnodes.desc_signature):
        body, name = signature.parent[-1], (signature["ids"] or [""])[0]
        users = [
            chapter
            for chapter, names in library.chapters.items()
            if name in names
        ]
        if users:
            line = nodes.paragraph("", "Used in ", classes=["used-in"])
            for chapter in users:
                title = nodes.Text(app.env.titles[chapter].astext())
                line += make_refnode(app.builder, page, chapter, "", title)
                line += nodes.Text("." if chapter == users[-1] else ", ")
            below = body.first_child_matching_class(
                (addnodes.index, addnodes.desc)
            )
            body.insert(len(body) if below is None else below, line)


def link_back(app, page, template, context, doctree):
    """viewcode guesses where an object is documented, and errs where names are imported."""
    module = sys.modules.get(
        page.removeprefix("_modules/").replace("/", ".")
    )
    if page.startswith("_modules/paperrepro/") and module:

        def correct(match):
            name = app.library.names.get(id(attrgetter(match[2])(module)))
            return match[1] + (name or "")

        pattern = r'(id="([\w.]+)">\s*<a class="viewcode-back" href="[^"#]*#)[^"]*'
        context["body"] = re.sub(pattern, correct, context["body"])


# Of a docstring: an example, which stays as it is; code; a short text in quotes, a value.
CODE = re.compile(
    r'(>>> .*|\.\.\. .*)|(?<![`:])`([^`]+)`(?![`_])|(?<!\w)("[\w.:*-]+")'
)


def as_rst(app, what, name, obj, options, lines):
    """The docstrings' Markdown as reStructuredText: code, lists, and what is returned."""
    text = CODE.sub(
        lambda m: m[1] or f"``{m[2] or m[3]}``", "\n".join(lines)
    )
    text = re.sub(r"(?m)^((?!\s*- ).*\S.*)\n(?=- )", r"\1\n\n", text)
    text = re.sub(r"(?m)^(Returns|Yields):\n    ", r":\1: ", text)
    lines[:] = text.split("\n")


def setup(app):
    app.connect("doctree-resolved", link)
    app.connect("html-page-context", link_back)
    before_napoleon = 400
    app.connect(
        "autodoc-process-docstring", as_rst, priority=before_napoleon
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
