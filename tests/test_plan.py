"""What a package asks of a device: equal to the network's own count, and to numbers by hand."""

import pytest
import torch
from test_coreml import SIZE, TINY, tiny
from torch import nn

from paperrepro.complexity import count_macs, count_parameters
from paperrepro.export import export_coreml, mil, plan
from paperrepro.export.network import stored_bytes
from paperrepro.export.package import MilError, Operation, Type
from paperrepro.export.picture import draw_plan
from paperrepro.export.plan import first_ios, hints
from paperrepro.reparam import reparameterize


@pytest.mark.parametrize("name", TINY)
def test_counts_are_the_networks(name, tmp_path):
    model = tiny(name)
    path = tmp_path / "net.mlpackage"
    export_coreml(model, path, size=SIZE)
    table = plan(path)
    fused = reparameterize(model)
    assert table["macs"].sum() == count_macs(fused, SIZE)
    assert table["parameters"].sum() == count_parameters(fused)
    assert len(table) == len(mil.load(path).operations)
    stored = table["weight_bytes"].sum()
    assert 2 * count_parameters(fused) < stored < stored_bytes(path)


class ByHand(nn.Module):
    """A convolution with a kernel of 14 rows and 18 columns, and a product with its transpose."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 18), padding=(1, 0), groups=1)

    def forward(self, x):
        x = self.conv(x).flatten(2)
        return (x @ x.mT).flatten(1)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("plan") / "net.mlpackage"
    export_coreml(ByHand(), path, size=20, normalize=False)
    return plan(path).set_index("type")


def test_a_convolution_by_hand(by_hand):
    """4 x 20 x 3 numbers of 3 x 3 x 18 products each; 2 bytes a number."""
    conv = by_hand.loc["conv"]
    assert conv["macs"] == 4 * 20 * 3 * 3 * 3 * 18
    assert conv["parameters"] == 4 * 3 * 3 * 18 + 4
    assert conv["weight_bytes"] == 2 * conv["parameters"]
    assert conv["activation_bytes"] == 2 * (3 * 20 * 20 + 4 * 20 * 3)
    assert conv["shape"] == "1 x 4 x 20 x 3" and conv["dtype"] == "float16"


def test_a_product_by_hand(by_hand):
    assert by_hand.loc["matmul"]["macs"] == 4 * 4 * 60
    assert by_hand.loc["matmul"]["parameters"] == 0


def test_hints_name_their_source(by_hand):
    hint = by_hand.loc["conv"]["hint"]
    assert hint.startswith("kernel 18 wide (over 13 on A13 and M1, over 16 from A14: ane-guide")
    assert "Apple, coreai-models" in hint
    first = by_hand.iloc[0]
    assert first["dtype"] == "float32" and first["hint"].startswith("float32 (Apple")
    assert by_hand.loc["matmul"]["hint"] == ""


def test_other_hints():
    operation = Operation("relu", {"x": "a"}, {"b": Type("float16", (1,) * 6)})
    ((hint, remedy),) = hints(operation, {})
    assert hint == "rank above 5 (Apple, coreai-models, neural_engine_rules.md)" and remedy
    gather = Operation("gather", {"x": "a"}, {"b": Type("float16", (1, 2))})
    assert "hollance" in hints(gather, {})[0][0]


def test_one_name_has_versions():
    """Of iOS 16 is a table for a constant, of iOS 18 one for each of its blocks."""
    assert first_ios("constexpr_lut_to_dense", {"lut", "indices", "shape"}) == 16
    assert first_ios("constexpr_lut_to_dense", {"lut", "indices"}) == 18


def test_the_oldest_system_and_dilations(tmp_path):
    """Of iOS 16 are compressed weights; RapidNet's dilated kernels have a hint, two reports."""
    path = tmp_path / "net.mlpackage"
    export_coreml(tiny("rapidnet_ti"), path, size=SIZE, compress="palette8")
    table = plan(path)
    assert {"iOS15", "iOS16"} == set(table["ios"])
    dilated = table[table["hint"].str.startswith("dilated")]
    assert len(dilated) and dilated["hint"].str.contains("native").all()
    assert (table["remedy"] != "").equals(table["hint"] != "")
    figure = draw_plan(table, "net")
    assert len(figure.axes[0].patches) == len(table)
    with pytest.raises(ValueError, match="without operations"):
        draw_plan(table.iloc[:0])


def test_compressed_weights_count_as_they_are_stored(tmp_path):
    """One byte a number in int8, with two per channel for the scale and one for the zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 512, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tables = {}
    for method in (None, "int8"):
        path = tmp_path / f"{method}.mlpackage"
        export_coreml(model, path, size=8, compress=method)
        tables[method] = plan(path).set_index("type").loc["conv"]
    assert tables[None]["parameters"] == tables["int8"]["parameters"] == 512 * 27 + 512
    assert tables[None]["weight_bytes"] == 2 * (512 * 27 + 512)
    assert 0 <= tables["int8"]["weight_bytes"] - (512 * (27 + 2 + 1) + 2 * 512) < 16
    assert tables[None]["macs"] == tables["int8"]["macs"]


def test_a_free_side_cannot_be_counted(tmp_path):
    import coremltools as ct

    image = torch.rand(1, 3, 8, 8)
    traced = torch.jit.trace(nn.ReLU(), image)
    free = ct.TensorType(name="x", shape=(1, 3, ct.RangeDim(8, 16), 8))
    model = ct.convert(traced, inputs=[free], convert_to="mlprogram", skip_model_load=True)
    model.save(str(tmp_path / "free.mlpackage"))
    program = mil.load(tmp_path / "free.mlpackage")
    assert [*program(torch.ones(1, 3, 9, 8)).values()][0].shape == (1, 3, 9, 8)
    with pytest.raises(MilError, match="free sides"):
        plan(tmp_path / "free.mlpackage")
    with pytest.raises(MilError, match="mlpackage"):
        plan(tmp_path / "none.mlpackage")
