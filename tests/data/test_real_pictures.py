"""Real pictures, where they are: beside the project, or where EDGEMETA_DATA says."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgemeta.data import open_data

DATA = Path(os.environ.get("EDGEMETA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needed(name):
    if not (DATA / name).exists():
        pytest.skip(f"NOT TESTED: {name} is not in {DATA}; set EDGEMETA_DATA")
    return DATA / name


def test_omniglot_drawings(tmp_path):
    with zipfile.ZipFile(needed("omniglot-small1.zip")) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if "/Greek/" in name])
    greek = next(path for path in tmp_path.rglob("Greek") if path.is_dir())
    split = open_data(str(greek), shape=(28, 28, 1))
    assert len(split.train.classes) == 24  # letters
    assert len(split.train) + len(split.test) == 24 * 20  # each drawn by twenty people
    x, _ = split.train.load()
    assert x.mean() > 200  # thin black strokes on white


def test_omniglot_alphabets(tmp_path):
    with zipfile.ZipFile(needed("omniglot-small1.zip")) as archive:
        archive.extractall(tmp_path)
    split = open_data(str(tmp_path / "images_background_small1"))
    assert (split.kind, split.skipped, split.unused) == ("Omniglot", 0, ())
    assert split.train.owners.names == ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
    assert (len(split.train.classes), len(split.train), len(split.test)) == (136, 136 * 15, 136 * 5)


def test_cifar_photographs(tmp_path):
    """The first pictures of the archive, which is a stream: the rest need not be unpacked."""
    counts: dict[str, int] = {}
    with tarfile.open(needed("cifar10-images.tar.xz")) as archive:
        for member in archive:
            *_, part, name, _ = ("", "", *Path(member.name).parts)
            if member.isfile() and counts.setdefault(f"{part}/{name}", 0) < 40:
                counts[f"{part}/{name}"] += 1
                path = tmp_path / part / name / Path(member.name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
            if sum(counts.values()) >= 80:
                break
    split = open_data(str(tmp_path / next(iter(counts)).split("/")[0]))
    assert split.train.shape == (32, 32, 3)
    assert len(split.train) + len(split.test) >= 80
    x, _ = split.train.load()
    assert 60 < x.mean() < 200  # photographs: neither dark nor white
