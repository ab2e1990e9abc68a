"""`paperrepro benchmark`: tables on the screen and in files, and mistakes told in one line."""

import json

import pytest
from torch import nn
from typer.testing import CliRunner

from paperrepro.benchmark import blocks, depthwise, runtimes, tables, trainer
from paperrepro.cli import app
from paperrepro.results import load_result

COMMANDS = (
    *("depthwise", "operators", "blocks", "models", "tables", "correlation", "runtimes"),
    *("erf", "shape-bias", "trainer", "executorch", "quantization", "deployment", "loading"),
)


def benchmark(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    result = benchmark(command, "--help")
    assert result.exit_code == 0
    assert "--out" in result.stdout
    assert command in benchmark("--help").stdout


def test_every_loop_beside_the_trainer_takes_a_step(tmp_path):
    recipe, data = trainer.prepare("digits", tmp_path)
    for loop in (trainer.bare_loop, trainer.trainer_loop, trainer.timm_loop):
        loop(recipe, data)()


def test_a_quick_table_on_the_screen_and_in_a_file(tmp_path):
    result = benchmark("blocks", "--quick", "--out", tmp_path, "--format", "json")
    assert result.exit_code == 0, result.output
    stored = load_result(tmp_path / "blocks-quick.csv")
    assert stored.provenance["command"] == "paperrepro benchmark blocks --quick"
    assert stored.provenance["threads"] == "1"
    assert json.loads(result.stdout) == stored.table.to_dict("records")
    assert {*stored.table.activation} == {*blocks.ACTIVATIONS}
    assert stored.table["null"].nunique() == 1


def test_a_row_of_a_papers_table_is_timed_as_the_claims_say(tmp_path, monkeypatch):
    """Its options, its size, and one network once: Table 5's BatchNorm is its r = 1/4."""
    seen = []

    def forward(model, size):
        seen.append((type(model).__name__, size, {type(part) for part in model.modules()}))
        return lambda: None

    pattern = r"fasternet-t3-mobilevit_xxs-latency_cpu|fasternet-t5-fasternet_t0_w_.*-latency_cpu"
    monkeypatch.setattr(tables, "forward", forward)
    monkeypatch.setattr(tables, "TABLES", {"fasternet-t5-fasternet_t0_w_bn-latency_cpu": pattern})
    result = benchmark("tables", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    stored = load_result(tmp_path / "tables.csv").table
    assert stored["subject"].tolist() == [
        "FasterNet-T0 w/ BN",
        "MobileViT-XXS",
        "FasterNet-T0 w/ LN",
        "FasterNet-T0 w/ ReLU",
    ]
    assert seen[0][:2] == ("FasterNet", 224) and seen[1][1] == 256
    assert {nn.BatchNorm2d, nn.GELU} < seen[0][2]
    assert nn.BatchNorm2d not in seen[2][2] and nn.GELU not in seen[3][2]
    assert (stored["reference"] == "fasternet-t5-fasternet_t0_w_bn-latency_cpu").all()
    assert stored["paper"].tolist() == [8.2, 25.4, 10.3, 7.6]


def test_the_depthwise_benchmark_writes_its_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(depthwise, "CHANNELS", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for sides in ("SIDES", "TRAINING_SIDES"):
        monkeypatch.setattr(depthwise, sides, (8,))
    for kernels in ("KERNELS", "TRAINING_KERNELS"):
        monkeypatch.setattr(depthwise, kernels, (3, 17))
    monkeypatch.setattr(depthwise, "REPLKNET_LAYERS", ((2, 4, 8, 5), (1, 4, 8, 17)))
    monkeypatch.setattr(depthwise, "replknet_inference", depthwise.tiny_step)
    compare = depthwise.compare
    monkeypatch.setattr(
        depthwise, "compare", lambda each, **_: compare(each, rounds=2, min_seconds=0)
    )
    result = benchmark("depthwise", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    table = load_result(tmp_path / "depthwise.csv").table
    cells = list(zip(table["pass"], table.side, table.kernel, strict=True))
    assert cells == [(each, 8, k) for each in ("inference", "training") for k in (3, 17)]
    assert (table.drop(columns="pass") > 0).all().all()
    assert len(load_result(tmp_path / "depthwise-networks.csv").table) == 2
    reached = load_result(tmp_path / "depthwise-reached.csv").table
    assert list(reached.cells) == [2] * 6
    for row in reached[reached["pass"] == "inference"].itertuples():
        ratio = table[table["pass"] == "inference"][f"auto_{row.maps}_over_best"]
        assert row.share_reached == (ratio >= 0.95).mean() and row.worst == ratio.min()


def test_networks_by_name(tmp_path):
    result = benchmark("models", "mobileone_s0", "--quick", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    stored = load_result(tmp_path / "models-quick.csv")
    assert stored.provenance["command"] == "paperrepro benchmark models mobileone_s0 --quick"
    assert {*stored.table.model} == {"mobileone_s0"}


def test_runtimes_of_networks_by_name(tmp_path, monkeypatch):
    measured = []

    def run_case(*case):
        measured.append(case[:3])
        return [{"model": case[0], "ms": 1.0}]

    monkeypatch.setattr(runtimes, "run_case", run_case)
    networks = "--network", "resnet18", "--network", "mobileone_s1"
    result = benchmark("runtimes", "jit", *networks, "--batch", "2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert measured == [(name, 2, ["eager", "jit"]) for name in ("resnet18", "mobileone_s1")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runtimes", "tensorrt"), "'tensorrt'"),
        (("runtimes", "eager", "--network", "resnet_50"), "resnet_50"),
        (("models", "resnet_50", "--quick"), "resnet_50"),
        (("blocks", "--threads", "0"), "--threads"),
        (("depthwise", "--device", "cuda:9"), "cuda:9"),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    result = benchmark(*arguments, "--out", tmp_path / "new")
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not list(tmp_path.rglob("*.csv"))


def test_a_folder_that_cannot_be_written_is_told_before_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "run", lambda **_: pytest.fail("measured"))
    file = tmp_path / "file"
    file.touch()
    result = benchmark("blocks", "--out", file)
    assert result.exit_code == 1
    assert str(file) in result.output
    assert "--out" in result.output


def test_correlation_measures_nothing(tmp_path):
    assert benchmark("correlation", "--out", tmp_path).exit_code == 0
    assert len(load_result(tmp_path / "correlation.csv").table)


# Orderings of the stored results, each several times apart.


def test_large_kernels_are_many_times_faster_than_pytorchs():
    table = load_result("depthwise").table
    large = table[table.kernel >= 17]
    assert (large[large["pass"] == "inference"].auto_channels_last > 10).all()
    widest = table[(table["pass"] == "training") & (table.kernel == 31)]
    assert (widest.auto_channels_last > 10).all()
    assert (widest.auto_channels_last / widest.channels_last > 5).all()


def test_on_another_processor_the_operator_keeps_up_with_the_best_of_pytorchs_paths():
    """Microseconds of dispatch and noise put some cells below .95."""
    reached = load_result("depthwise-amd-reached").table
    assert (reached.geometric_mean > 0.97).all()
    table = load_result("depthwise-amd").table
    static = table[table["pass"] == "inference"].static_over_channels_last
    assert (static >= 0.9).mean() > 0.95 and static.min() > 0.8


def test_networks_gain_from_it():
    table = load_result("depthwise-networks").table.set_index("network")
    assert (table.auto_channels_last > 3).all()
    step = table.loc["tiny K = 31, training step"]
    assert step.auto_channels_last / step.stock_channels_last > 2.5
