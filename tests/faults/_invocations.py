"""Commands that somebody typed wrong, as they were found by hand, and what each must say.

`{here}` is a folder with the files that `prepare` makes. Each ends in one line that holds the
fragment, with that exit code, before anything long begins.
"""

import json
from pathlib import Path

import torch
from PIL import Image

from paperrepro import create_model, save_model
from paperrepro.models import Input

OPTIONS = {"num_classes": 16, "embed_dim": 8, "depths": (1, 1, 1, 1)}
TRAIN = "train fasternet_t0 --data shapes --recipe small --out {here}/run"
ERF = "erf {here}/net.safetensors --images {here}/pictures --count 1 --size 64"
NETWORK = "fasternet_t0={here}/net.safetensors"

# (words, exit code, fragment of the message)
INVOCATIONS = [
    # names
    ("info mobileone-s0", 2, "mobileone_s0"),
    ("info fasternet_t0 --size 16", 2, "32"),
    ("info fasternet_t0 --size 0", 2, "32"),
    ("info fasternet_t0 --size -5", 2, "32"),
    ("info fasternet_t0 --size 99999999999999999999", 2, "16384"),
    ("models resnet", 2, "resnet"),
    ("models --family resnet", 2, "resnet"),
    ("models fast* --family rapidnet", 2, "--family"),
    ("models --update {here}/readme.txt/table.csv", 1, "cannot write"),
    ("claims --paper resnet", 2, "resnet"),
    ("claims --mode guess", 2, "guess"),
    ("claims --verdict wrong", 2, "wrong"),
    ("claims --model rapidnet-s", 2, "rapidnet_s"),
    # recipes
    ("recipe fasternet_t0 --recipe tiny", 2, "tiny"),
    ("recipe fasternet_t0 --recipe {here}/absent.json", 2, "absent.json"),
    ("recipe fasternet_t0 --recipe {here}/broken.json", 2, "broken.json"),
    ("recipe fasternet_t0 --recipe {here}/list.json", 2, "list.json"),
    ("recipe fasternet_t0 --recipe {here}/pictures", 2, "pictures"),
    ("recipe fasternet_t0 --set learning_rate=1", 2, "lr"),
    ("recipe fasternet_t0 --set epochs", 2, "epochs"),
    ("recipe fasternet_t0 --set epochs=-1", 2, "epochs"),
    ("recipe fasternet_t0 --set epochs=nan", 2, "epochs"),
    ("recipe fasternet_t0 --set lr=nan", 2, "lr"),
    ("recipe fasternet_t0 --set lr=inf", 2, "lr"),
    ("recipe fasternet_t0 --set lr=-1", 2, "lr"),
    ("recipe fasternet_t0 --set ema=1", 2, "ema"),
    ("recipe fasternet_t0 --set clip_grad=0", 2, "clip_grad"),
    ("recipe fasternet_t0 --set batch_size=0", 2, "batch_size"),
    ("recipe fasternet_t0 --set size=0", 2, "size"),
    ("recipe fasternet_t0 --set size=-1", 2, "size"),
    ("recipe fasternet_t0 --set repeats=999999999", 2, "repeats"),
    ("recipe mobileone_s0 --set config.k=-3", 2, "k"),
    ("recipe mobileone_s0 --set config.kk=3", 2, "kk"),
    # training
    (TRAIN + " --set batch_size=1", 1, "batch_size"),
    (TRAIN + " --set config.k=-3", 2, "k"),
    (TRAIN + " --device gpu", 2, "gpu"),
    (TRAIN + " --device cuda", 2, "GPU"),
    (TRAIN + " --trunk-only", 2, "--weights"),
    (TRAIN + " --workers -1", 2, "--workers"),
    (TRAIN + " --weights {here}/absent.pt", 1, "absent.pt"),
    (TRAIN + " --weights {here}/noise.pt", 1, "noise.pt"),
    ("train fasternet_t0 --data shapes --recipe small --out {here}/readme.txt", 1, "readme.txt"),
    ("train fasternet_t0 --data {here}/absent --recipe small --out {here}/run", 1, "absent"),
    ("train fasternet_t0 --data {here}/empty --recipe small --out {here}/run", 1, "empty"),
    ("train fasternet_t0 --data cifar10 --recipe small --out {here}/run", 1, "cifar10"),
    ("train fasternet_t0 --data nowhere --recipe small --out {here}/run", 1, "nowhere"),
    ("train fasternet_t9 --data shapes --recipe small --out {here}/run", 2, "fasternet_t9"),
    # evaluation
    ("evaluate fasternet_t0 --weights {here}/net.safetensors --data shapes --size -1", 2, "size"),
    ("evaluate fasternet_t0 --weights {here}/net.safetensors --data shapes --size 0", 2, "size"),
    ("evaluate fasternet_t0 --weights {here}/net.safetensors --data shapes --device gpu", 2, "gpu"),
    ("evaluate fasternet_t0 --weights {here}/absent.pt --data shapes", 1, "absent.pt"),
    ("evaluate fasternet_t0 --weights {here}/empty.safetensors --data shapes", 1, "empty.safet"),
    ("evaluate fasternet_t0 --weights {here}/last.pt --data shapes", 1, "model.safetensors"),
    ("evaluate mobileone_s0 --weights {here}/net.safetensors --data shapes", 1, "fasternet_t0"),
    ("evaluate fasternet_t0 --weights {here}/pictures --data shapes", 1, "pictures"),
    # experiments
    ("experiment nothing", 2, "nothing"),
    ("experiment shapes --seeds 0", 2, "--seeds"),
    ("experiment shapes --jobs 0", 2, "--jobs"),
    # looking inside
    (ERF + " --device gpu", 2, "gpu"),
    (ERF + " --rule other", 2, "other"),
    (ERF + " --stage 9", 1, "9"),
    (ERF + " --stage nowhere", 1, "nowhere"),
    (ERF + " --out {here}/erf.jpg", 2, ".png"),
    (ERF + " --out {here}/readme.txt/erf.png", 2, "readme.txt"),
    ("erf {here}/net.safetensors --images {here}/pictures --size 0", 2, "size"),
    ("erf {here}/net.safetensors --images {here}/pictures --size -3", 2, "size"),
    ("erf {here}/net.safetensors --images {here}/absent", 1, "absent"),
    ("erf {here}/net.safetensors --images {here}/empty", 1, "empty"),
    ("erf mobileone_s0= --images {here}/pictures", 2, "mobileone_s0="),
    ("erf ={here}/net.safetensors --images {here}/pictures", 2, "half of"),
    (f"erf {NETWORK} {NETWORK} --images {{here}}/pictures --size 64", 2, "twice"),
    ("erf {here}/last.pt --images {here}/pictures", 2, "last.pt"),
    ("salient {here}/net.safetensors {here}/net.safetensors", 2, "twice"),
    ("salient {here}/empty.safetensors", 2, "empty.safetensors"),
    ("salient {here}/net.safetensors --kernel 99", 1, "99"),
    ("salient {here}/net.safetensors --kernel 0", 2, "--kernel"),
    ("kernels {here}/net.safetensors --smallest 0", 2, "--smallest"),
    ("kernels {here}/net.safetensors --smallest 99", 1, "99"),
    ("kernels {here}/net.safetensors --out {here}/k.png", 2, ".csv"),
    ("similarity {here}/net.safetensors --images {here}/pictures --count 1", 2, "--count"),
    ("similarity {here}/net.safetensors --images {here}/pictures --size 1", 2, "size"),
    ("approximate {here}/net.safetensors --images {here}/pictures --steps 0", 2, "--steps"),
    ("shape-bias", 2, "network"),
    ("shape-bias {here}/net.safetensors --images {here}/absent", 1, "absent"),
    ("shape-bias --decisions {here}/absent.csv", 1, "absent.csv"),
    ("shape-bias --decisions {here}/readme.txt", 1, "readme.txt"),
    ("shape-bias --decisions {here}/empty", 1, "empty"),
    ("shape-bias {here}/net.safetensors --device gpu", 2, "gpu"),
    ("attribute {here}/net.safetensors {here}/absent.png", 1, "absent.png"),
    ("attribute {here}/net.safetensors {here}/readme.txt", 1, "readme.txt"),
    ("attribute {here}/net.safetensors {here}/pictures/0.png --method guess", 2, "guess"),
    ("attribute {here}/net.safetensors {here}/pictures/0.png --baseline red", 2, "red"),
    ("attribute {here}/net.safetensors {here}/pictures/0.png --target 99", 1, "99"),
    ("attribute {here}/net.safetensors {here}/pictures/0.png --target -1", 1, "-1"),
    # export
    ("export mobileone_s9", 2, "mobileone_s9"),
    ("export fasternet_t0 --weights {here}/net.safetensors --out {here}/net", 2, ".mlpackage"),
    ("export fasternet_t0 --weights {here}/net.safetensors --precision half", 2, "half"),
    ("export fasternet_t0 --weights {here}/net.safetensors --target iOS3", 2, "iOS3"),
    ("export fasternet_t0 --weights {here}/net.safetensors --compress zip", 2, "zip"),
    ("export fasternet_t0 --weights {here}/net.safetensors --size 0", 2, "size"),
    ("export fasternet_t0 --weights {here}/net.safetensors --labels {here}/absent", 1, "absent"),
    ("export fasternet_t0 --weights {here}/net.safetensors --labels {here}/latin", 1, "latin"),
    ("export fasternet_t0 --weights {here}/net.safetensors --labels {here}/readme.txt", 1, "16"),
    ("export fasternet_t0 --weights {here}/net.safetensors --classes 3", 1, "16 classes"),
    ("verify {here}/absent.mlpackage", 1, "absent.mlpackage"),
    ("verify {here}/readme.txt", 1, "readme.txt"),
    ("verify {here}/readme.txt --count 0", 2, "--count"),
    ("plan {here}/empty", 1, "empty"),
    ("verify-networks resnet", 2, "resnet"),
    ("verify-networks fasternet_t0 --images {here}/absent", 1, "absent"),
    ("verify-networks fasternet_t0 --out {here}/readme.txt", 1, "readme.txt"),
    # benchmarks
    ("benchmark depthwise --threads 100000000", 2, "--threads"),
    ("benchmark depthwise --threads 0", 2, "--threads"),
    ("benchmark blocks --out {here}/readme.txt", 1, "readme.txt"),
    ("benchmark models nothing", 2, "nothing"),
    ("benchmark runtimes nothing", 2, "nothing"),
]


def prepare(here: Path) -> None:
    """The files that the invocations name."""
    torch.manual_seed(0)
    model = create_model("fasternet_t0", **OPTIONS)
    model.input = Input(size=64, crop=None)
    save_model(model, here / "net.safetensors")
    torch.save({"epoch": 3, "recipe": {"lr": 0.1}}, here / "last.pt")
    (here / "empty.safetensors").touch()
    (here / "noise.pt").write_bytes(bytes(range(256)) * 9)
    (here / "readme.txt").write_text("one\ntwo\n")
    (here / "latin").write_bytes("Tür\n".encode("latin-1") * 16)
    (here / "broken.json").write_text('{"model": ')
    (here / "list.json").write_text(json.dumps([1, 2]))
    (here / "empty").mkdir()
    (here / "pictures").mkdir()
    for index in range(12):
        picture = Image.effect_noise((80, 70), 60).convert("RGB")
        picture.save(here / "pictures" / f"{index}.png")
