"""The command line: `paperrepro models`, `info NAME`, `claims`, `benchmark`, `train` and the rest.

Commands parse, call the library and print; what they compute is a public function that a notebook
can call. Each imports the library inside its body, so that `--help` waits for nobody.
"""

from .main import app

__all__ = ["app"]
