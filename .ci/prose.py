"""The faults of English that recur in this book: python .ci/prose.py names each with its place.

It reads the pages, the notebooks' Markdown, README, and the first paragraph of every docstring, but
no code, no formula and nothing in double quotation marks.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERB = "(?:is|are|was|were|has|have|had|does|do|did|can|may|must|needs?|takes?|costs?)"
FAULTS = {
    r"telephones?": "phone",
    r"how (?:many|much) (?:\w+ ){0,4}(?:has|have|needs?|costs?|takes?) (?:it|they)": "does it have",
    r"on the (?:one|other) hand": "name both, and compare them",
    r"the (?:former|latter)": "repeat the noun",
    r"respectively": "say each with its own",
    r"mere(?:ly)?": "only",
    rf"nor {VERB}": "say who does not, either",
    r"from which \w+ on": "the first that",
    r"(?:as|what|whom?) one (?!has|is|of)\w+s": "you; or name who",
    r"one (?:can|may|must|should|has to|would)": "you; or name who",
    r"(?:so as|in order) to": "to",
    r"due to the fact that|owing to": "because",
    r"(?:it (?:should|must) be noted|note|it is worth noting) that": "say it",
    r"obviously|needless to say": "leave it out",
    r"utili[sz]\w+": "use",
    r"whilst|amongst|thereof|therein|whereof|wherein|whereby|hereby|albeit": "plain English",
    r"an own|own ones": "of its own",
    r"(?:is|are|was|were|be) told(?! to| apart)": "reported, detected, distinguished",
    r"in the place of": "instead of",
    r"anew|afresh": "again, newly",
    r"(?<![.:;?] )but for": "except for",
    r"(?<!what )stands? in(?! for)": "is in",
    r"is another(?: \w+)? than": "differs from",
    r"e\.g\.|i\.e\.|etc\.": "for example, that is, and so on",
    r"(?!that|had)([a-z]+) \1": "twice the same word",
}
PATTERNS = {re.compile(rf"\b(?:{fault})(?!\w)", re.I): cure for fault, cure in FAULTS.items()}
NO_PROSE = re.compile(
    r"^(`{3,}|~~~).*?^\1|\$\$.*?\$\$|`+[^`]*`+|\$[^$\n]+\$|<[^>\n]+>|\]\([^)\n]*\)"
    r'|"[^"\n]{1,80}"|^\|[-:| ]+\|$',
    re.M | re.S,
)


def faults(text: str) -> list[str]:
    """What is wrong in a text, in order, with the remedy."""
    paragraphs = re.sub(r"\n\s*\n|\n(?=[#*>|-] )", " ¶ ", NO_PROSE.sub(" # ", text))
    plain = re.sub(r"\s+", " ", paragraphs)
    found = sorted(
        (match.start(), match[0], cure)
        for pattern, cure in PATTERNS.items()
        for match in pattern.finditer(plain)
    )
    return [
        f"...{plain[max(0, at - 40) : at + 60]}...: {words!r}: {cure}" for at, words, cure in found
    ]


def texts() -> Iterator[tuple[str, str]]:
    """Each text that is read, with its place."""
    for path in (ROOT / "README.md", *sorted((ROOT / "book").rglob("*.md"))):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield f"{path.relative_to(ROOT)} ({cell['id']})", "".join(cell["source"])
    for path in sorted((ROOT / "paperrepro").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                head = (ast.get_docstring(node) or "").partition("\n\n")[0]
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", head


def main() -> int:
    found = [f"{place}: {fault}" for place, text in texts() for fault in faults(text)]
    print("\n".join(found) or "No recurring fault of English.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
