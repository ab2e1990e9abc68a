"""How the operators choose: by measuring once, kept for every process, and never in training."""

import json
import multiprocessing
import warnings

import pytest
import torch
import torch.nn.functional as F

import paperrepro.ops.choice as module
from paperrepro.ops import METHODS, DepthwiseConv2d, depthwise, depthwise_conv2d, tuning
from paperrepro.ops.choice import fastest, folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Choices in a folder of the test's own, none in the process, the default mode after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "chosen", {})
    monkeypatch.setattr(depthwise, "chosen", module.chosen)
    with tuning("static"):
        yield


@pytest.fixture
def measurements(monkeypatch):
    """The ways of each measurement; the last of them wins."""
    seen = []

    def fake(ways):
        for way in ways.values():
            way()
        seen.append([*ways])
        return {name: 1.0 / (1 + index) for index, name in enumerate(ways)}

    monkeypatch.setattr(module, "measure", fake)
    return seen


X = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(4, 1, 9, 9, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def call(x=X, weight=WEIGHT, **options):
    return depthwise_conv2d(x, weight, **options)


def another_process():
    module.chosen.clear()


def test_the_default_measures_nothing(measurements):
    assert tuning.mode == "static"
    call()
    with tuning("off"):
        call()
    assert not measurements and not folder().exists()


def test_a_shape_is_measured_once_for_all_processes(measurements):
    with tuning("auto"):
        first = call()
        assert torch.equal(call(), first) and len(measurements) == 1
        (file,) = folder().iterdir()
        assert json.loads(file.read_text())["choice"] == measurements[0][-1]
        another_process()
        assert torch.equal(call(), first) and len(measurements) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"x": X.repeat(2, 1, 1, 1)},
        {"x": X[..., 1:]},
        {"x": X.contiguous(memory_format=torch.channels_last)},
        {"x": X.double(), "weight": WEIGHT.double()},
        {"weight": WEIGHT[..., 1:-1]},
    ],
)
def test_another_shape_format_or_dtype_is_measured_anew(change, measurements):
    with tuning("auto"):
        call()
        call(**change)
    assert len(measurements) == len([*folder().iterdir()]) == 2


def test_another_number_of_threads_is_measured_anew(measurements):
    before = torch.get_num_threads()
    try:
        with tuning("auto"):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                call()
    finally:
        torch.set_num_threads(before)
    assert len(measurements) == 2


@pytest.mark.parametrize("content", ("", '{"choice": ', "[]", '{"choice": 3}', b"\xff\xfe\0"))
def test_a_damaged_choice_is_told_and_made_anew(content, measurements):
    with tuning("auto"):
        first = call()
        (file,) = folder().iterdir()
        whole = file.read_bytes()
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        another_process()
        with pytest.warns(UserWarning, match=file.name):
            assert torch.equal(call(), first)
        assert file.read_bytes() == whole and len(measurements) == 2


def test_a_choice_of_another_release_is_made_anew(measurements):
    with tuning("auto"):
        call()
        (file,) = folder().iterdir()
        file.write_text('{"choice": "winograd"}')
        another_process()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    assert json.loads(file.read_text())["choice"] in METHODS


def test_without_a_place_the_choice_holds_in_the_process(tmp_path, monkeypatch, measurements):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with tuning("auto"):
        with pytest.warns(UserWarning, match="this process only"):
            first = call()
        assert torch.equal(call(), first)
    assert len(measurements) == 1


def choose_in_turn(home, start):
    import os

    os.environ["XDG_CACHE_HOME"] = home
    for index in range(start, start + 60):
        fastest(f"key-{index}", {"one": int, "other": int})


def test_processes_share_one_folder(tmp_path):
    """Three processes that choose at once, two of them the same: every file is whole."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=choose_in_turn, args=(str(tmp_path), start)) for start in (0, 0, 30)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    files = [*folder().iterdir()]
    assert {file.name for file in files} == {f"key-{index}.json" for index in range(90)}
    assert {json.loads(file.read_text())["choice"] for file in files} <= {"one", "other"}


def test_the_faster_way_is_chosen_and_a_hopeless_one_soon_given_up():
    calls = {"slow": 0, "fast": 0}

    def slow():
        calls["slow"] += 1
        torch.randn(400, 400) @ torch.randn(400, 400) @ torch.randn(400, 400)
        sum(range(3_000_000))

    def fast():
        calls["fast"] += 1

    assert fastest("pair", {"slow": slow, "fast": fast}) == "fast"
    assert calls["slow"] <= 2 < calls["fast"]


@pytest.mark.parametrize("format", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("winner", METHODS)
def test_the_choice_changes_the_last_digits_only(winner, format, monkeypatch):
    monkeypatch.setattr(depthwise, "fastest", lambda key, ways: winner)
    x = X.contiguous(memory_format=format)
    bias = torch.randn(4)
    expected = F.conv2d(x.double(), WEIGHT.double(), bias.double(), padding=4, groups=4)
    with tuning("auto"):
        output = call(x, bias=bias)
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert output.is_contiguous(memory_format=format)


def test_training_never_asks_for_a_measurement(monkeypatch):
    """A run that is resumed where other choices are kept gives the same bits."""

    def step():
        torch.manual_seed(0)
        layer = DepthwiseConv2d(4, 9)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            layer(X).square().sum().backward()
            optimizer.step()
        return layer.state_dict()

    expected = step()
    monkeypatch.setattr(depthwise, "fastest", lambda key, ways: pytest.fail("measured"))
    with tuning("auto"):
        found = step()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_pytorchs_deterministic_mode_measures_nothing(monkeypatch):
    monkeypatch.setattr(depthwise, "fastest", lambda key, ways: pytest.fail("measured"))
    torch.use_deterministic_algorithms(True)
    try:
        with tuning("auto"):
            call()
    finally:
        torch.use_deterministic_algorithms(False)


def test_off_is_pytorchs_convolution():
    weight = WEIGHT.clone().requires_grad_()
    with tuning("off"):
        output = depthwise_conv2d(X, weight)
    assert torch.equal(output, F.conv2d(X, weight, padding=4, groups=4))
    assert "Convolution" in type(output.grad_fn).__name__


def test_modes_end_with_their_context_and_unknown_ones_are_told():
    with tuning("auto"):
        with tuning("off"):
            assert tuning.mode == "off"
        assert tuning.mode == "auto"
    tuning("off")
    assert tuning.mode == "off"
    with pytest.raises(ValueError, match="'fast'; use one of off, static, auto"):
        tuning("fast")


def test_exports_and_transforms_measure_nothing(measurements):
    layer = DepthwiseConv2d(4, 9).eval()
    with tuning("auto"):
        program = torch.export.export(layer, (X,))
        targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert targets == [torch.ops.aten.conv2d.default]
        torch.func.vmap(lambda x: depthwise_conv2d(x[None], WEIGHT))(X)
    assert not measurements
