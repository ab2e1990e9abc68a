"""Search for readers: prose before code, nothing from folded or set-up cells, one spelling for two.

Sphinx finds a word wherever it stands and ranks by titles only. Here the index gets a weight for each
word of each page, BM25 over what a reader reads; book/_ext/search.js ranks by it.
"""

import re
from collections import Counter
from math import log
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.search import js_index
from sphinx.search.en import SearchEnglish

# How much a word counts by where it stands; one in prose counts 1.
TITLE, HEADING, OUTPUT, CODE = 30, 3, 0.3, 0.1
FOLDED = {"tag_hide-input", "tag_hide-cell"}
# As in BM25: how soon more mentions stop to count, and how much a long page is marked down.
SATURATION, LENGTH = 10, 0.3
BRITISH = r"(?<=\w{4})is(?=e[drs]?$|ing$|ations?$|able$)"
COMPOUND = re.compile(r"(?<!\w)(\w+)-(\w+)(?!\w)")
NUMBER = re.compile(r'<span class="section-number">.*?</span>')
UNSEEN = re.compile(
    r"<(style|script)\b.*?</\1>|<[^<]+?>", re.IGNORECASE | re.DOTALL
)


class English(SearchEnglish):
    """English that takes "quantise" for "quantize" and "fine-tune" for "finetune", too."""

    js_stemmer_code = (
        f"{SearchEnglish.js_stemmer_code}\nconst BRITISH = /{BRITISH}/;\n"
        + Path(__file__).with_name("search.js").read_text(encoding="utf-8")
    )

    def split(self, text):
        joined = ["".join(pair) for pair in COMPOUND.findall(text)]
        return super().split(text) + joined

    def stem(self, word):
        return super().stem(re.sub(BRITISH, "iz", word.lower()))


def passages(node, weight=1):
    """The texts below a node, each with what its words count."""
    if isinstance(node, nodes.comment):
        return
    if isinstance(node, nodes.raw):
        yield UNSEEN.sub(" ", node.astext()), weight
        return
    if isinstance(node, nodes.Text):
        yield node.astext(), weight
        return
    classes = set(node.get("classes", ()))
    if "cell_input" in classes:
        folded = FOLDED & set(node.parent.get("classes", ()))
        weight = 0 if folded or "%pip install" in node.astext() else CODE
    elif "cell_output" in classes:
        weight = OUTPUT
    elif isinstance(node, (nodes.literal_block, addnodes.desc_signature)):
        weight = min(weight, CODE)
    elif isinstance(node, nodes.title):
        page = isinstance(node.parent.parent, nodes.document)
        weight = TITLE if page else HEADING
    elif isinstance(node, nodes.term):
        weight = HEADING
    for child in node.children:
        yield from passages(child, weight)


def counted(doctree, language):
    """How often each word of a page is mentioned, by weight."""
    counts = Counter()
    for text, weight in passages(doctree):
        for word in language.split(text):
            stem = language.stem(word)
            if weight and language.word_filter(stem):
                counts[stem] += weight
    return counts


def weigh(pages):
    """By the word, a list of page, weight, page, weight and so on, for pages given as counts."""
    mean = sum(map(Counter.total, pages)) / len(pages)
    spread = Counter(word for page in pages for word in page)
    weights = {word: [] for word in spread}
    for number, page in enumerate(pages):
        long = 1 - LENGTH + LENGTH * page.total() / mean
        for word, count in page.items():
            rare = log(1 + len(pages) / spread[word])
            score = rare * count / (count + SATURATION * long)
            weights[word] += [number, max(1, round(100 * score))]
    return weights


def write(app, error):
    """Puts the weights into the index in the place of Sphinx's own lists of words."""
    if error or not hasattr(app.builder, "indexer"):  # no page was written
        return
    path = Path(app.outdir) / "searchindex.js"
    index = js_index.loads(path.read_text(encoding="utf-8"))
    language = app.builder.indexer.lang
    index["weights"] = weigh(
        [
            counted(app.env.get_doctree(name), language)
            for name in index["docnames"]
        ]
    )
    index["terms"] = index["titleterms"] = {}
    # With its number a chapter would not be found by its title.
    index["titles"] = [NUMBER.sub("", title) for title in index["titles"]]
    path.write_text(js_index.dumps(index), encoding="utf-8")


def setup(app):
    app.add_search_language(English)
    before_scripts_are_joined = 400
    app.connect("build-finished", write, priority=before_scripts_are_joined)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
