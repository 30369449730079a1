"""Folders of small made-up photos, and the command in this process, for the tests of an index."""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from jaxret.app import cli
from jaxret.index.catalogue import Catalogue

FOLDERS = ("a", "b", "c")
PAST = 1_700_000_000  # seconds: long before any scan


class Ran(NamedTuple):
    """What a command left."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of the output."""
        return os.fsdecode(self.out).splitlines()


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture of 5 x 5 random colours, smooth."""
    colours = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, seed: int, **options) -> Path:
    """Write a picture as a file, made long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, **options)
    os.utime(path, (PAST + seed, PAST + seed))
    return path


def make(root: Path, count: int = 30) -> Path:
    """Make photos in three sub-folders: a/1.jpg is number 1."""
    each = -(-count // len(FOLDERS))
    for number in range(count):
        save(root / FOLDERS[number // each] / f"{number % each}.jpg", number)
    return root


class Command:
    """The command `jaxret` in this process."""

    def __init__(self, capture):
        self.capture = capture

    def __call__(self, *arguments: str | Path) -> Ran:
        """Run it and return what it left."""
        self.capture.readouterr()
        status = cli.main([os.fsdecode(argument) for argument in arguments])
        out, err = self.capture.readouterr()
        return Ran(status, out, err.decode(errors="replace"))


@pytest.fixture(scope="session")
def indexed(tmp_path_factory):
    """A folder of 30 photos with its index, to copy."""
    from jaxret.index import build

    root = make(tmp_path_factory.mktemp("indexed") / "photos")
    build(root, model="look")
    return root


@pytest.fixture
def jaxret(capsysbinary, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.delenv("JAXRET_INDEX", raising=False)
    return Command(capsysbinary)


@pytest.fixture
def root(indexed, tmp_path, monkeypatch):
    """A copy of the indexed folder, and the current folder."""
    copy = tmp_path / "photos"
    shutil.copytree(indexed, copy)
    monkeypatch.chdir(copy)
    return copy


def rows(root):
    with Catalogue(root / ".jaxret") as catalogue:
        return {row.path: row for row in catalogue.rows()}


def ids(root):
    return {path: row.id for path, row in rows(root).items()}


def summary(ran):
    return json.loads(ran.out)["summary"]


def counts(ran):
    return {name: number for name, number in summary(ran).items() if number and name != "seconds"}
