"""What the chapters share: data, training, random statistics, tables."""

from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import paperrepro
from paperrepro import lessons
from paperrepro.claims import load_claims
from paperrepro.claims.outcomes import load_outcomes
from paperrepro.models.replknet import LargeKernel


def test_digits_are_split_the_same_way_each_time_and_by_digit():
    data = lessons.digits(size=16)
    assert data.train_x.shape == (1347, 3, 16, 16)
    assert data.test_x.shape == (450, 3, 16, 16)
    assert torch.equal(data.test_y, lessons.digits(size=8, channels=1).test_y)
    counts = data.test_y.bincount()
    assert counts.min() >= 43
    assert counts.max() <= 46
    few = lessons.digits(size=8, train=100, test=50)
    assert (len(few.train_y), len(few.test_y)) == (100, 50)


def test_the_cue_stands_at_its_distance_and_tells_the_class():
    images, labels = lessons.distant_cue(20, side=12, distances=(5,), seed=3)
    assert (labels != lessons.IGNORED).sum() == 20 * 12
    colors = torch.tensor(list(lessons.CUES.values()), dtype=torch.float32)
    for image, row, column in (labels != lessons.IGNORED).nonzero().tolist():
        assert images[image, :, row, column].tolist() == [1, 1, 1]
        beside = [c for c in (column - 5, column + 5) if 0 <= c < 12]
        lit = [c for c in beside if images[image, :, row, c].any()]
        assert len(lit) == 1
        assert torch.equal(images[image, :, row, lit[0]], colors[labels[image, row, column]])
    assert (images.sum(1) > 0).sum() == 2 * 20 * 12


def test_photographs_are_prepared_as_the_stored_networks_expect():
    pictures = lessons.photographs(32)
    assert pictures.shape == (4, 3, 32, 32)
    assert torch.allclose(
        lessons.normalised(torch.full((3, 1, 1), 255.0)).flatten()[0],
        torch.tensor((1 - 0.485) / 0.229),
    )
    assert pictures.abs().max() < 3


def test_a_small_network_is_opened_as_it_runs():
    net = lessons.small_network("shapes-replknet-k3")
    assert not net.training and net.num_classes == 16
    assert not [part for part in net.modules() if isinstance(part, LargeKernel)]


@pytest.mark.parametrize("distances", [(), (0,), (12,)])
def test_a_distance_that_has_no_place_is_named(distances):
    with pytest.raises(ValueError, match="1 to 11"):
        lessons.distant_cue(1, side=12, distances=distances)


def test_only_a_layer_that_reaches_the_cue_can_answer():
    """One layer of KxK sees (K - 1) / 2 pixels far: 7x7 sees a cue at 3, 5x5 does not."""
    train = lessons.distant_cue(256, side=10, distances=(3,), seed=0)
    test = lessons.distant_cue(128, side=10, distances=(3,), seed=1)
    data = lessons.Split(*train, *test)
    reached = {
        kernel: lessons.train_and_test(
            lambda k=kernel: nn.Sequential(
                nn.Conv2d(3, 16, k, padding=k // 2), nn.ReLU(), nn.Conv2d(16, 4, 1)
            ),
            data,
            epochs=6,
            batch=32,
            rate=0.02,
        )
        for kernel in (5, 7)
    }
    assert reached[7] > 0.9
    assert reached[5] < 0.35


def test_training_is_the_same_each_time_and_can_be_watched():
    x, y = lessons.distant_cue(64, side=6, distances=(1,))
    seen = []
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nn.Conv2d(3, 4, 3, padding=1)
        runs.append(
            lessons.train(net, x, y, epochs=2, batch=16, after_epoch=lambda: seen.append(1))
        )
    assert runs[0] == runs[1]
    assert len(runs[0]) == 8
    assert len(seen) == 4
    momentum = lessons.train(net, x, y, epochs=1, batch=16, rate=0.1, momentum=0.9)
    assert len(momentum) == 4
    assert not net.training


def test_random_statistics_show_a_wrong_fold():
    """With fresh BatchNorms the branches would merge rightly even without their statistics."""
    block = lessons.as_if_trained(LargeKernel(4, 5, 3))
    again = lessons.as_if_trained(LargeKernel(4, 5, 3))
    assert torch.equal(block["large"].norm.running_var, again["large"].norm.running_var)
    assert not block.training
    merged = paperrepro.reparameterize(block)
    wrong = block["large"].conv.weight.clone()
    wrong[:, :, 1:-1, 1:-1] += block["small"].conv.weight
    assert not torch.allclose(merged.weight, wrong, atol=1e-2)


def test_weights_go_over_in_order_or_not_at_all():
    source = lessons.as_if_trained(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    target = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(lessons.copy_weights(source, target)(x), source(x))
    with pytest.raises(ValueError, match=r"0\.weight \(3, 2, 1, 1\) for weight \(3, 2, 3, 3\)"):
        lessons.copy_weights(nn.Sequential(nn.Conv2d(2, 3, 1)), nn.Conv2d(2, 3, 3))
    with pytest.raises(ValueError, match="7 tensors in the source, 2 in the target"):
        lessons.copy_weights(source, nn.Conv2d(2, 3, 1))


class Cells(HTMLParser):
    """The texts of a table's cells, with their tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.depth = None, [], []
        self.feed(text)
        assert not self.depth

    def handle_starttag(self, tag, attributes):
        self.depth.append(tag)
        if tag in ("td", "th", "caption"):
            self.open = [tag, dict(attributes), ""]

    def handle_data(self, data):
        if self.open:
            self.open[2] += data

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag
        if self.open and tag == self.open[0]:
            self.cells.append(tuple(self.open))
            self.open = None


FRAME = pd.DataFrame(
    {
        "name": ["<b>a & b</b>", "c"],
        "count": [1234567, 2],
        "share": [0.125, np.nan],
        "paper": [Decimal("71.80"), None],
        "works": [True, False],
    }
)


def test_a_table_shows_numbers_at_the_right_and_missing_ones_as_a_dash():
    shown = lessons.table(
        FRAME, heads={"share": "Share, %"}, digits={"share": 1}, caption="What <it> shows"
    )
    caption, *cells = Cells(shown._repr_html_()).cells
    assert caption[2] == "What <it> shows"
    assert [text for _, _, text in cells] == [
        *("name", "count", "Share, %", "paper", "works"),
        *("<b>a & b</b>", "1,234,567", "0.1", "71.80", "yes"),
        *("c", "2", "–", "–", "no"),
    ]
    assert all(tag == "th" and with_["scope"] == "col" for tag, with_, _ in cells[:5])
    sides = ["right" in with_["style"] for _, with_, _ in cells[5:10]]
    assert sides == [False, True, True, True, False]
    assert "<b>" not in shown._repr_html_()
    assert shown._repr_html_() == lessons.table(
        FRAME, heads={"share": "Share, %"}, digits={"share": 1}, caption="What <it> shows"
    )._repr_html_()  # fmt: skip


def test_the_plain_text_has_the_same_cells():
    text = str(lessons.table(FRAME, digits=3))
    first, second, third = text.splitlines()
    assert first.split() == ["name", "count", "share", "paper", "works"]
    assert second.endswith("1,234,567  0.125  71.80  yes")
    assert third.split() == ["c", "2", "–", "–", "no"]


def test_an_index_names_its_rows_and_levels_of_columns_are_joined():
    wide = pd.DataFrame({"K": [3, 3, 7], "seed": [0, 1, 0], "right": [0.5, 0.7, -0.0001]})
    shown = lessons.table(wide.pivot(index="K", columns="seed"), heads={"K": "Kernel"}, digits=1)
    assert shown.heads == ["Kernel", "right, 0", "right, 1"]
    assert shown.rows == [["3", "0.5", "0.7"], ["7", "0.0", "–"]]
    heads = [tag for tag, with_, _ in Cells(shown._repr_html_()).cells if "row" in with_.values()]
    assert heads == ["th", "th"]
    series = lessons.table(wide.set_index("K").right.rename("share"))
    assert series.heads == ["K", "share"]


def test_a_head_for_no_column_is_a_mistake():
    with pytest.raises(ValueError, match=r"no column \['shares'\]: there are .*'share'"):
        lessons.table(FRAME, heads={"shares": "Share"})


def test_claims_keep_the_papers_digits():
    claims = load_claims(paper="replknet")
    rows = claims[(claims["item"] == "Table 5") & (claims["quantity"] == "top1")]
    shown = lessons.claims_table(rows, caption="RepLKNet, Table 5")
    assert shown.heads == ["In the paper", "Of", "What", "Paper", "Ours", "Verdict"]
    assert [row[3] for row in shown.rows] == [str(value) for value in rows["paper_value"]]
    assert shown.rows[0][2] == "ImageNet top-1, %"
    assert shown.rows[0][4] == "–"
    assert set(lessons.SHORT) <= set(paperrepro.claims.QUANTITIES)


def test_outcomes_show_their_interval_and_verdict():
    rows = load_outcomes().head(3)
    shown = lessons.outcomes_table(rows)
    assert [row[-1] for row in shown.rows] == list(rows["verdict"])
    assert [row[3].split()[0] for row in shown.rows] == [f"{x:.1f}" for x in rows["low"]]
