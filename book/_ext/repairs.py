"""What Jupyter Book, Sphinx and docutils get wrong in every page."""

import re

# docutils calls the bibliography a list whose children are no list items.
NO_LIST = (
    '<div role="list" class="citation-list">',
    '<div class="citation-list">',
)
# Sphinx makes a long signature's parameters a list of descriptions without terms.
NO_TERMS = re.compile(
    r'<dl>\n((?:<dd><em class="sig-param">.*</dd>\n)+)</dl>'
)


def parameters(match):
    return (
        f'<div class="sig-params">{match[1].replace("dd>", "div>")}</div>'
    )


def repair(app, pagename, templatename, context, doctree):
    # thebe's scripts are unused here, and there twice, which is a script error.
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe"
        not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]
    body = context.get("body", "").replace(*NO_LIST)
    context["body"] = NO_TERMS.sub(parameters, body)


def setup(app):
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
