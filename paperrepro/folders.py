"""Where the package finds what it reads: `data/` of the checkout, or the copy that it installs."""

from pathlib import Path


def data_folder(name: str) -> Path:
    """The folder `data/<name>`: the installed copy, or the checkout's.

    Raises:
        FileNotFoundError: naming both places, where neither exists.
    """
    package = Path(__file__).resolve().parent
    installed, checkout = package / "_data" / name, package.parent / "data" / name
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no {name} at {installed} or {checkout}; reinstall paperrepro, or name the folder yourself"
    )
