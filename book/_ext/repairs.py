"""What Jupyter Book and docutils get wrong in every page."""

# docutils calls the bibliography a list whose children are no list items.
NO_LIST = '<div role="list" class="citation-list">', '<div class="citation-list">'


def repair(app, pagename, templatename, context, doctree):
    # thebe's scripts are unused here, and there twice, which is a script error.
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe"
        not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]
    context["body"] = context.get("body", "").replace(*NO_LIST)


def setup(app):
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
