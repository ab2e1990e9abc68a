"""Jupyter Book adds thebe's scripts to every page, unused; and twice, which is a script error."""


def drop(app, pagename, templatename, context, doctree):
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe"
        not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]


def setup(app):
    app.connect("html-page-context", drop)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
