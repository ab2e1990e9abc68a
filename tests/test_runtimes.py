"""Runtimes: the same logits everywhere, missing ones named, what is robust in the stored result."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import randomize, relative_difference
from torch._inductor.exc import InvalidCxxCompiler

from paperrepro.benchmark import runtimes
from paperrepro.benchmark.runtimes import COMPILERS, RUNTIMES, prepare
from paperrepro.models import build_model
from paperrepro.reparam import reparameterize
from paperrepro.results import load_result


@pytest.fixture
def network():
    config = {"num_classes": 10, "widths": (0.25,) * 4, "blocks": (1, 1, 1, 1)}
    return randomize(build_model("mobileone_s0", **config))


@pytest.fixture
def small(monkeypatch, network):
    """A small network in the place of all others, at 64 pixels, and short rounds."""
    monkeypatch.setattr(runtimes, "SIZE", 64)
    opened = SimpleNamespace(model=network)
    monkeypatch.setattr(runtimes, "find_network", lambda name: opened)
    compare = runtimes.compare
    monkeypatch.setattr(
        runtimes, "compare", lambda each, **_: compare(each, rounds=2, min_seconds=0)
    )


def cases():
    return [
        pytest.param(name, marks=pytest.mark.slow if name in COMPILERS else ()) for name in RUNTIMES
    ]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("runtime", cases())
def test_every_runtime_gives_the_same_logits(runtime, batch, network):
    if problem := runtimes.missing(runtime):
        pytest.skip(problem)
    run = prepare(runtime, reparameterize(network), torch.randn(batch, 3, 64, 64))
    images = torch.randn(batch, 3, 64, 64)  # not those it was prepared with
    with torch.no_grad():
        expected = network(images)
    assert run(images).shape == (batch, 10)
    assert relative_difference(expected, run(images)) < 1e-4


def test_preparing_leaves_the_network_alone(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    for runtime in ("channels_last", "for_inference", "jit"):
        prepare(runtime, network, images)(images)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in network.parameters())


@pytest.mark.parametrize(
    "ask",
    [
        lambda: prepare("tensorrt", None, None),
        lambda: runtimes.run(runtimes=["eager", "tensorrt"]),
    ],
)
def test_unknown_runtime_lists_the_known(ask):
    with pytest.raises(ValueError, match=f"'tensorrt'.*{', '.join(RUNTIMES)}"):
        ask()


def test_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else name)
    assert not runtimes.missing("onnxruntime")
    with pytest.raises(ValueError, match=r"openvino.*paperrepro\[runtimes\]"):
        prepare("openvino", None, None)


def test_missing_compiler_is_named(monkeypatch):
    def fail():
        raise InvalidCxxCompiler

    monkeypatch.setattr(runtimes, "get_cpp_compiler", fail)
    for runtime in COMPILERS:
        assert "install g++" in runtimes.missing(runtime)
    assert not runtimes.missing("jit")


def test_absent_runtimes_keep_a_row_without_numbers(small, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    table = runtimes.run(quick=True, progress=False)
    absent = table[table["note"] != ""]
    assert set(absent["runtime"]) == {"onnxruntime", "openvino", "executorch"}
    assert absent["ms"].isna().all()
    present = {"eager", "channels_last", "for_inference", "jit"}
    assert set(table.loc[table["note"] == "", "runtime"]) == present
    assert table.loc[table["note"] == "", "ms"].gt(0).all()


def test_table_relates_every_runtime_to_eager(small):
    table = runtimes.run([("mobileone_s0", 2)], ["channels_last"], progress=False)
    table = table.set_index(["form", "runtime"])
    assert list(table.index) == [
        (form, runtime) for form in ("unfused", "fused") for runtime in ("eager", "channels_last")
    ]
    unfused, fused = table.loc[("unfused", "eager")], table.loc[("fused", "eager")]
    assert np.allclose(table["over_unfused"], unfused["ms"] / table["ms"])
    assert np.allclose(table["over_fused"], fused["ms"] / table["ms"])
    assert np.allclose(table["images_per_s"], 2e3 / table["ms"])
    assert unfused["error"] == 0 < fused["error"] < 1e-4
    assert (table["prepare_s"] > 0).all()


def test_wrong_logits_show_in_the_error(small, monkeypatch):
    def biased(model, images):
        logits = runtimes.eager(model, images)(images)
        return lambda images: logits + 0.5 * logits.std()

    monkeypatch.setitem(RUNTIMES, "jit", biased)
    table = runtimes.run([("mobileone_s0", 1)], ["jit"], progress=False)
    errors = table.set_index(["form", "runtime"])["error"]
    assert errors["fused", "jit"] == pytest.approx(0.5, abs=1e-3)
    assert errors["fused", "eager"] < 1e-4


def test_threads_are_those_asked_for_and_given_back(small, monkeypatch):
    seen, before = [], torch.get_num_threads()

    def look(model, images):
        seen.append(torch.get_num_threads())
        return runtimes.eager(model, images)

    monkeypatch.setitem(RUNTIMES, "eager", look)
    runtimes.run([("mobileone_s0", 1)], ["eager"], threads=2, progress=False)
    assert seen == [2, 2]
    assert torch.get_num_threads() == before


def test_stored_result_reaches_the_goals():
    table = load_result("runtimes").table
    later = {"executorch", "for_inference"}
    assert set(table["runtime"]) | later == set(RUNTIMES)
    assert table["note"].isna().all(), "measure where every runtime is installed"
    assert table["error"].max() < 1e-3
    single = table[(table["model"] == "mobileone_s0") & (table["batch"] == 1)]
    assert single["over_unfused"].max() >= 8
    assert single["over_fused"].max() >= 1.5


def test_the_fastest_runtime_of_a_network(small, monkeypatch):
    """The table of times: a row for each network, all runtimes in one interleaved comparison."""
    from paperrepro.benchmark import executorch

    for runtime in ("executorch", "onnxruntime"):
        if problem := runtimes.missing(runtime):
            pytest.skip(problem)
    for name in ("SIZE", "find_network", "compare"):
        monkeypatch.setattr(executorch, name, getattr(runtimes, name))
    table = executorch.times(["mobileone_s0"], progress=False)
    (row,) = table.to_dict("records")
    times = {name: row[f"{name}_ms"] for name in executorch.RUNTIMES}
    assert row["network"] == "mobileone_s0" and row["best"] == min(times, key=times.get)
    assert row["over_eager"] == pytest.approx(times["eager"] / times["executorch"])
    assert row["null"] > 0
    with pytest.raises(ValueError, match="mobileone_s9"):
        executorch.times(["mobileone_s9"], progress=False)
