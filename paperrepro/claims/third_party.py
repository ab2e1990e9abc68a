"""What others found of the papers' networks: accuracies that neither the authors nor we measured.

`data/third_party/*.csv` holds them with their source. An accuracy that others reached by a training
of their own is the nearest that there is to a reproduction; one that they measured with the
authors' weights says that the weights are as good as the paper says.
"""

from typing import TYPE_CHECKING

from ..files import data_folder
from .table import load_claims

if TYPE_CHECKING:
    import pandas as pd

HOW = {
    "trained": "a training of their own",
    "evaluated": "the authors' weights on their evaluation",
}


def stored() -> "pd.DataFrame":
    """The files' rows as they are."""
    import pandas as pd

    files = sorted(data_folder("third_party").glob("*.csv"))
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def third_party() -> "pd.DataFrame":
    """Every value of others beside the paper's.

    Returns:
        A row each: `claim`, `paper` (the paper's top-1 in percent), `top1` and `top5` of others,
        `difference` (theirs less the paper's), `how` (a key of `HOW`), `name` of their network and
        `source` (the address of the file that states it).
    """
    table = stored()
    values = load_claims().set_index("id")["paper_value"]
    paper = table["claim"].map(values).astype(float)
    table.insert(1, "paper", paper)
    return table.assign(difference=(table["top1"] - paper).round(3))
