"""Files of weights: every layout loads to the same logits; every bad file is named and refused."""

import dataclasses
import http.server
import os
import pickle
import resource
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from conftest import randomize, relative_difference
from PIL import Image

import paperrepro
from paperrepro.files import sha256
from paperrepro.models import build_model, family_of, input_of, list_models, release_of
from paperrepro.weights import WeightsError, create_model, read_checkpoint
from paperrepro.weights.layouts import layouts
from paperrepro.weights.released import cache_folder

SMALL = ["mobileone_s0", "fasternet_t0", "mobilevig_ti", "mobilevigv2_ti", "rapidnet_ti"]
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES)


def renamed(model: torch.nn.Module, layout: str) -> dict[str, torch.Tensor]:
    names = layouts(model)[layout]
    return {names[key]: value for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def trained():
    """A network with weights that no initialisation gives, as if it had been trained."""
    torch.manual_seed(3)
    return {name: randomize(build_model(name)) for name in SMALL}


# The same logits from every layout and wrapper.


@pytest.mark.parametrize("name", SMALL)
def test_a_released_file_loads(name, trained, tmp_path):
    path = tmp_path / "released.pth"
    torch.save(renamed(trained[name], "released"), path)
    model = create_model(name, weights=path)
    assert model.training and model.variant == name
    assert torch.equal(logits(model), logits(trained[name]))


@pytest.mark.parametrize("name", ["replknet_3", "replknet_31b"])
@pytest.mark.parametrize("layout", ["released", "openmmlab"])
def test_replknets_files_load(name, layout, tmp_path):
    config = {"depths": (1, 1, 2, 1), "channels": (8, 16, 24, 32)}
    source = randomize(build_model(name, **config))
    torch.save({"state_dict": renamed(source, layout)}, tmp_path / "replknet.pth")
    model = create_model(name, weights=tmp_path / "replknet.pth", **config)
    assert torch.equal(logits(model), logits(source))


@pytest.mark.parametrize("name", ["mobileone_s0", "mobileone_s4", "fasternet_t0"])
def test_timms_file_loads(name, tmp_path):
    twin = randomize(timm.create_model(name))
    safetensors.torch.save_file(twin.state_dict(), tmp_path / "model.safetensors")
    model = create_model(name, weights=tmp_path / "model.safetensors")
    assert relative_difference(logits(twin), logits(model)) <= 1e-5


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes(wrapper, prefix, trained, tmp_path):
    state = renamed(trained["fasternet_t0"], "released")
    content = {wrapper: {prefix + key: value for key, value in state.items()}, "epoch": 299}
    torch.save(content, tmp_path / "checkpoint.pth")
    model = create_model("fasternet_t0", weights=tmp_path / "checkpoint.pth")
    assert torch.equal(logits(model), logits(trained["fasternet_t0"]))


def test_averaged_weights_come_first(trained, tmp_path):
    averaged = renamed(trained["rapidnet_ti"], "released")
    plain = {key: torch.zeros_like(value) for key, value in averaged.items()}
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "both.pth")
    model = create_model("rapidnet_ti", weights=str(tmp_path / "both.pth"))
    assert torch.equal(logits(model), logits(trained["rapidnet_ti"]))


def test_mobileones_fused_file_gives_the_fused_network(trained, tmp_path):
    fused = paperrepro.reparameterize(trained["mobileone_s0"])
    path = tmp_path / "mobileone_s0.pth.tar"
    torch.save(renamed(fused, "released"), path)
    model = create_model("mobileone_s0", weights=path)
    assert model.reparameterized and not model.training
    assert torch.equal(logits(model), logits(fused))


@pytest.mark.parametrize("fuse", [False, True])
def test_our_own_file_keeps_name_and_configuration(fuse, tmp_path):
    config = {"mixer": "svga", "dilations": (1, 2)}
    model = randomize(create_model("rapidnet_ti", num_classes=10, **config))
    if fuse:
        model = paperrepro.reparameterize(model)
    path = tmp_path / "own.safetensors"
    paperrepro.save_model(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]
    for loaded in (
        paperrepro.load_model(path),
        create_model("rapidnet_ti", num_classes=10, weights=path, **config),
    ):
        assert (loaded.variant, loaded.num_classes) == ("rapidnet_ti", 10)
        assert loaded.reparameterized == fuse
        assert torch.equal(logits(loaded), logits(model))


def test_the_trunk_alone_for_other_classes(trained, tmp_path):
    path = tmp_path / "released.pth"
    torch.save(renamed(trained["mobilevigv2_ti"], "released"), path)
    with pytest.raises(WeightsError, match=r"released.pth .*1000 .*7.*trunk_only"):
        create_model("mobilevigv2_ti", num_classes=7, weights=path)
    model = create_model("mobilevigv2_ti", num_classes=7, weights=path, trunk_only=True)
    ours, theirs = (m.eval().features(IMAGES)[-1] for m in (model, trained["mobilevigv2_ti"]))
    assert torch.equal(ours, theirs) and logits(model).shape == (1, 7)


def test_the_trunk_alone_of_our_own_file(trained, tmp_path):
    path = tmp_path / "own.safetensors"
    paperrepro.save_model(trained["fasternet_t0"], path)
    with pytest.raises(WeightsError, match="own.safetensors .*1000 .*7"):
        create_model("fasternet_t0", num_classes=7, weights=path)
    model = create_model("fasternet_t0", num_classes=7, weights=path, trunk_only=True)
    assert torch.equal(model.head.conv.weight, trained["fasternet_t0"].head.conv.weight)


# Bad files.


class Danger:
    """Unpickled, it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.path),)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    path, proof = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save({"state_dict": Danger(proof)}, path)
    with pytest.raises(WeightsError, match="bad.pth"):
        create_model("fasternet_t0", weights=path)
    path.write_bytes(pickle.dumps(Danger(proof)))
    with pytest.raises(WeightsError, match=r"bad.pth"):
        create_model("fasternet_t0", weights=path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>Sign in</title>", b"\x80\x04K"])
def test_what_is_not_a_checkpoint_is_named(content, tmp_path):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"page.pth .*{len(content)}"):
        create_model("fasternet_t0", weights=path)


@pytest.mark.parametrize("kind", ["torch", "safetensors", "legacy"])
@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_named(kind, share, trained, tmp_path):
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        paperrepro.save_model(trained["fasternet_t0"], path)
    else:
        state = renamed(trained["fasternet_t0"], "released")
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="weights.pth .*truncated"):
        create_model("fasternet_t0", weights=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "list"),
        ({}, "dict"),
        ({"epoch": 3, "lr": 0.1}, "epoch, lr"),
    ],
)
def test_a_file_without_a_state_dict_is_named(content, message, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=f"odd.pth .*{message}"):
        create_model("fasternet_t0", weights=tmp_path / "odd.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere.pth"):
        create_model("fasternet_t0", weights=tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match=str(tmp_path)):
        create_model("fasternet_t0", weights=tmp_path)


@pytest.mark.parametrize(
    ("asked", "held", "layout"),
    [
        ("fasternet_t1", "fasternet_t0", "released"),
        ("mobileone_s0", "rapidnet_ti", "released"),
        ("rapidnet_ti", "mobilevigv2_ti", "released"),
        ("mobileone_s1", "fasternet_t0", "timm"),
        ("mobilevigv2_s", "mobilevigv2_ti", "released"),
    ],
)
def test_another_networks_file_is_recognised(asked, held, layout, trained, tmp_path):
    torch.save(renamed(trained[held], layout), tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=f"(?s)file.pth .*{asked}.*{held}"):
        create_model(asked, weights=tmp_path / "file.pth")


def test_our_own_file_of_another_network_or_configuration(trained, tmp_path):
    path = tmp_path / "own.safetensors"
    paperrepro.save_model(trained["rapidnet_ti"], path)
    with pytest.raises(WeightsError, match="own.safetensors .*rapidnet_ti.* rapidnet_s"):
        create_model("rapidnet_s", weights=path)
    with pytest.raises(WeightsError, match=r"options \{\}.*'cpe': False.*load_model"):
        create_model("rapidnet_ti", weights=path, cpe=False)


def test_missing_and_surplus_keys_are_named(trained, tmp_path):
    state = renamed(trained["mobilevig_ti"], "released")
    del state["stem.stem.0.weight"], state["head.bias"]
    state["ema.decay"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    message = r"(?s)odd.pth.*2 missing: stem.stem.0.weight, head.bias.*1 surplus: ema.decay"
    with pytest.raises(WeightsError, match=message):
        create_model("mobilevig_ti", weights=tmp_path / "odd.pth")


def test_a_file_without_a_name_cannot_be_load_models(trained, tmp_path):
    safetensors.torch.save_file(trained["fasternet_t0"].state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"x.safetensors .*create_model"):
        paperrepro.load_model(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="create_model"):
        paperrepro.save_model(torch.nn.Linear(1, 1), tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": "{"}, "save_model"),
        ({"num_classes": "many"}, "save_model"),
        ({"paperrepro": "resnet"}, "'resnet'"),
        ({"config": '{"colour": 3}'}, "'colour'"),
    ],
)
def test_odd_metadata_is_named(changed, message, trained, tmp_path):
    state = trained["fasternet_t0"].state_dict()
    metadata = {"paperrepro": "fasternet_t0", "num_classes": "1000", "config": "{}"}
    metadata |= {"reparameterized": "false"} | changed
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(WeightsError, match=f"odd.safetensors .*{message}"):
        paperrepro.load_model(tmp_path / "odd.safetensors")


def test_a_failed_save_leaves_the_old_file(trained, tmp_path):
    path = tmp_path / "own.safetensors"
    paperrepro.save_model(trained["fasternet_t0"], path)
    before = path.read_bytes()

    free, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        with pytest.raises(OSError, match="own.safetensors.*large"):
            paperrepro.save_model(trained["fasternet_t0"], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, most))
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]
    assert path.read_bytes() == before


def test_a_saved_file_is_the_same_bytes_and_everybodys_to_read(tmp_path):
    """In processes that hash their strings differently."""
    code = (
        "import os, sys, torch; from paperrepro import create_model, save_model; os.umask(0o022)\n"
        "torch.manual_seed(0); save_model(create_model('fasternet_t0', num_classes=2, embed_dim=8),"
        " sys.argv[1])"
    )
    for name in "ab":
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def small():
    torch.manual_seed(0)
    return build_model("fasternet_t0", num_classes=4, embed_dim=8, depths=(1, 1, 1, 1))


@pytest.mark.parametrize("offset", [-1, -5000, 300])
@pytest.mark.parametrize("ours", [True, False])
def test_one_flipped_bit_is_noticed(ours, offset, tmp_path):
    path = tmp_path / "network"
    model = small()
    paperrepro.save_model(model, path) if ours else torch.save(model.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[offset if ours else len(content) // 2 + offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="network"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value > 0, "bool"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8"),
        (lambda value: value * float("nan"), "not finite"),
        (lambda value: value / 0, "not finite"),
        (lambda value: torch.zeros(1).expand(value.shape), "more numbers"),
        (lambda value: value.to_sparse(), "sparse"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_by_name(change, reason, tmp_path):
    model = small()
    state = model.state_dict()
    key = "stages.2.blocks.0.expand.conv.weight"
    torch.save(state | {key: change(state[key])}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=f"odd.pt.*{key}.*{reason}"):
        create_model("fasternet_t0", num_classes=4, weights=tmp_path / "odd.pt", **model.config)


def test_a_variance_below_zero_is_refused(tmp_path):
    model = small()
    name = next(name for name in model.state_dict() if name.endswith("running_var"))
    model.get_buffer(name).neg_()
    paperrepro.save_model(model, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=name):
        paperrepro.load_model(tmp_path / "net.safetensors")


def test_an_archive_that_grows_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "flat.pt")
    with zipfile.ZipFile(tmp_path / "flat.pt") as flat:
        with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
            for entry in flat.infolist():
                bomb.writestr(entry.filename, flat.read(entry))
    with pytest.raises(WeightsError, match="bomb.pt.*expand to 4,0"):
        read_checkpoint(tmp_path / "bomb.pt")


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({1: torch.zeros(3)}, tmp_path / "numbers.pt")
    with pytest.raises(WeightsError, match="numbers.pt.*1 are not"):
        read_checkpoint(tmp_path / "numbers.pt")


@pytest.mark.parametrize(
    "change", [{"embed_dim": 10**9}, {"depths": [10**9, 1, 1, 1]}, {"embed_dim": 800}]
)
def test_metadata_larger_than_the_file_are_refused_before_anything_is_built(change, tmp_path):
    model = small()
    model.config = model.config | change
    paperrepro.save_model(model, tmp_path / "large.safetensors")
    with pytest.raises(WeightsError, match="large.safetensors"):
        paperrepro.load_model(tmp_path / "large.safetensors")


# Downloads.


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `folder` over HTTP, and points torch.hub's cache to an empty folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        requests = 0
        cut = False

        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def do_GET(self):
            type(self).requests += 1
            super().do_GET()

        def copyfile(self, source, outputfile):
            outputfile.write(source.read(10_000) if self.cut else source.read())

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", os.fspath(tmp_path / "home"))
    httpd.folder, httpd.handler = folder, Handler
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def release(server, monkeypatch, file: str, sha256: str = "") -> None:
    """Lets fasternet_t0's released weights be a file of the server."""
    url = f"http://127.0.0.1:{server.server_port}/{file}"
    changed = dataclasses.replace(release_of("fasternet_t0"), url=url, sha256=sha256)
    monkeypatch.setitem(family_of("fasternet_t0").releases, "fasternet_t0", changed)


def cached() -> list[str]:
    folder = cache_folder()
    return sorted(file.name for file in folder.glob("[!.]*"))


def test_released_weights_are_downloaded_once_and_verified_ever_after(
    server, monkeypatch, trained, capsys
):
    path = server.folder / "t0.pth"
    torch.save(renamed(trained["fasternet_t0"], "released"), path)
    release(server, monkeypatch, "t0.pth", sha256=sha256(path)[:8])
    for _ in range(2):
        model = create_model("fasternet_t0", weights="released")
        assert torch.equal(logits(model), logits(trained["fasternet_t0"]))
    assert server.handler.requests == 1
    assert cached() == ["t0.pth", "t0.pth.sha256"]

    copy = cache_folder() / "t0.pth"
    damaged = bytearray(copy.read_bytes())
    damaged[-5000] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(WeightsError, match="t0.pth"):
        create_model("fasternet_t0", weights="released")
    assert copy.read_bytes() == damaged and cached() == ["t0.pth", "t0.pth.sha256"]

    (cache_folder() / "t0.pth.sha256").unlink()  # as a kill between the two would leave it
    create_model("fasternet_t0", weights="released")
    assert server.handler.requests == 2


def test_a_download_with_another_checksum_is_refused(server, monkeypatch, trained, capsys):
    torch.save(renamed(trained["fasternet_t0"], "released"), server.folder / "t0.pth")
    release(server, monkeypatch, "t0.pth", sha256="00000000")
    with pytest.raises(WeightsError, match="fasternet_t0 .*t0.pth.*hash"):
        create_model("fasternet_t0", weights="released")
    assert cached() == []


def test_a_broken_download_keeps_nothing(server, monkeypatch, trained, capsys):
    torch.save(renamed(trained["fasternet_t0"], "released"), server.folder / "t0.pth")
    release(server, monkeypatch, "t0.pth")
    server.handler.cut = True
    with pytest.raises(WeightsError, match="t0.pth"):
        create_model("fasternet_t0", weights="released")
    assert cached() == []
    release(server, monkeypatch, "absent.pth")
    with pytest.raises(WeightsError, match="404"):
        create_model("fasternet_t0", weights="released")
    assert cached() == []


@pytest.mark.parametrize("name", ["mobilevigv2_ti", "mobilevig_b", "replknet_25"])
def test_networks_without_an_address_say_where_to_look(name):
    with pytest.raises(WeightsError, match=f"{name} .*https://"):
        create_model(name, weights="released")


# The table.


def test_the_table_of_releases_is_whole():
    for name in [*list_models(), "mobilenetv2"]:
        entry = release_of(name)
        assert entry.page.startswith("https://")
        assert entry.url is None or entry.url.startswith("https://")
        with torch.device("meta"):
            assert entry.layout in layouts(build_model(name))
    assert [name for name in list_models() if release_of(name).sha256] == [
        "replknet_31b",
        "replknet_31l",
        "replknet_xl",
    ]


@pytest.mark.parametrize("name", list_models())
def test_evaluation_transforms(name):
    image = Image.new("L", (500, 333), 128)
    tensor = paperrepro.evaluation_transform(name)(image)
    side = {"replknet_31l": 384, "replknet_xl": 320}.get(name, 224)
    assert tensor.shape == (3, side, side) and tensor.dtype == torch.float32
    mean = torch.tensor(input_of(name).mean)
    expected = (128 / 255 - mean) / torch.tensor(input_of(name).std)
    torch.testing.assert_close(tensor.mean((1, 2)), expected, atol=1e-4, rtol=0)


def test_read_checkpoint_returns_the_metadata(trained, tmp_path):
    paperrepro.save_model(trained["fasternet_t0"], tmp_path / "own.safetensors")
    state, metadata = read_checkpoint(tmp_path / "own.safetensors")
    assert metadata["paperrepro"] == "fasternet_t0" and len(state) == 131
