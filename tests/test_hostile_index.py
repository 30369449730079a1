"""A stranger's index or encoder runs nothing; files that may not be read; two writers at once."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import made_photos as photos
import pytest

from jaxret.app import cli
from jaxret.index import PhotoIndexError, build, search

COMMAND = "import sys; from jaxret.app.cli import main; sys.exit(main())"
NOBODY = 65534
# Events of sys.audit that run a stranger's code, start a program, or use the network.
WATCHED = (
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "sqlite3.load_extension",
)  # fmt: skip
WATCHER = f"""
import sys
def watch(event, arguments):
    if event in {WATCHED!r}:
        sys.stderr.write(f"SEEN {{event}} {{arguments}}\\n")
sys.addaudithook(watch)
from jaxret.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    root = photos.make(tmp_path_factory.mktemp("hostile") / "photos", 6)
    build(root, model="look")
    return root


@pytest.fixture
def root(indexed, tmp_path):
    shutil.copytree(indexed, tmp_path / "photos")
    return tmp_path / "photos"


def encoder_of(root):
    return next((root / ".jaxret" / "model").iterdir())


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["os:system", "jaxret.hashers.photo_hasher", "../evil", "evil"])
def test_an_encoder_that_names_code_of_its_own_is_refused(root, tmp_path, name, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = encoder_of(root)
    header = json.loads((folder / "encoder.json").read_text())
    header["hasher"]["name"] = name
    from jaxret import encoder

    arrays = encoder.read(folder)[1]
    fields = ("bits_or_dims", "distance", "image_size", "preprocessing", "class_names", "origin")
    evil = tmp_path / "encoder"
    encoder.write(evil, {"hasher": header["hasher"], **{n: header[n] for n in fields}}, arrays)
    with pytest.raises(PhotoIndexError, match="HASHERS"):
        build(root, tmp_path / "index", model=str(evil))
    assert not (tmp_path / "mark").exists()


def test_a_pickle_in_the_place_of_weights_is_not_read(root, tmp_path):
    content = pickle.dumps(Evil(tmp_path / "mark"))
    for file in (encoder_of(root) / "weights.safetensors", *root.rglob("*.npy")):
        file.write_bytes(content)
    query = photos.save(tmp_path / "new.png", 50)
    with pytest.raises(PhotoIndexError):
        search([str(query)], root / ".jaxret")
    with contextlib.suppress(PhotoIndexError):
        search([0], root / ".jaxret")
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_a_command_runs_no_code_beside_photos_and_uses_no_network(root, tmp_path):
    evil = f"open({str(tmp_path / 'mark')!r}, 'w')"
    for folder in (root, root / ".jaxret", encoder_of(root)):
        for name in ("numpy", "jaxret", "sitecustomize", "look", "layout"):
            (folder / f"{name}.py").write_text(evil)
    query = photos.save(tmp_path / "new.png", 50)
    for words in (["search", query, "--index", ".jaxret"], ["index", "."], ["info", "--verify"]):
        ran = subprocess.run(
            [sys.executable, "-P", "-c", WATCHER, *map(str, words)],
            cwd=root,
            capture_output=True,
            text=True,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")},
        )
        assert ran.returncode == 0, ran.stderr
        assert "SEEN" not in ran.stderr
    assert not (tmp_path / "mark").exists()


@contextlib.contextmanager
def without_privileges():
    """Be a user who may not read everything: a superuser could."""
    if os.geteuid():
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_14_what_may_not_be_read_is_named_and_kept(indexed, capsysbinary):
    jaxret = photos.Command(capsysbinary)
    with tempfile.TemporaryDirectory() as folder:  # others may enter it, as they may not tmp_path
        root = Path(folder) / "photos"
        shutil.copytree(indexed, root)
        assert jaxret("index", root).status == 0  # all that is imported is imported
        secret = photos.save(root / "a/secret.jpg", 60)
        for place in (Path(folder), *Path(folder).rglob("*")):
            place.chmod(0o777 if place.is_dir() else 0o666)
        secret.chmod(0)
        (root / "b").chmod(0)
        try:
            with without_privileges():
                ran = jaxret("index", root, "--json")
                again = jaxret("index", root)
        finally:
            (root / "b").chmod(0o777)
        assert (ran.status, again.status) == (3, 3)
        document = json.loads(ran.out)
        reasons = {file["path"]: file["reason"] for file in document["unreadable"]}
        assert reasons == {"a/secret.jpg": "Permission denied", "b": "Permission denied"}
        assert (document["summary"]["missing"], document["summary"]["images"]) == (2, 6)
        assert "Traceback" not in ran.err
        secret.chmod(0o666)
        summary = json.loads(jaxret("index", root, "--json").out)["summary"]
        assert (summary["new"], summary["missing"], summary["images"]) == (1, 0, 7)


@pytest.mark.soak
def test_15_of_two_runs_at_once_one_works_and_no_search_fails(root, capsysbinary):
    for number in range(100, 300):
        photos.save(root / "more" / f"{number}.jpg", number)
    words = [sys.executable, "-P", "-c", COMMAND, "index", str(root)]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    jaxret, searches = photos.Command(capsysbinary), 0
    while any(process.poll() is None for process in running):
        assert jaxret("search", root / "a/1.jpg").status == 0
        searches += 1
    errors = {process.wait(): process.communicate()[1] for process in running}
    assert sorted(errors) == [0, 2], errors
    assert "206 images: 200 new" in errors[0]
    assert "being updated by process" in errors[2]
    assert searches > 1
    assert cli.main(["info", "--verify", "--index", str(root / ".jaxret"), "-q"]) == 0
