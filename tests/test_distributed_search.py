"""`jaxret search --distributed`, as two processes of one job on this machine."""

import json
import os
import socket
import subprocess
import sys

import made_photos as photos
import pytest

from jaxret.index import Shard, build, merge

pytestmark = pytest.mark.soak
COMMAND = "import sys; from jaxret.app.cli import main; sys.exit(main())"


def run_job(folder, *processes):
    """Run the command once for each list of arguments; return status, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, "search", *map(str, arguments), "--distributed"],
            env={**os.environ, **job, "JAX_PROCESS_ID": str(number), "JAX_PLATFORMS": "cpu"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number, arguments in enumerate(processes)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    return [(process.returncode, *out) for process, out in zip(running, outputs, strict=True)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = photos.make(tmp_path_factory.mktemp("job") / "photos", 31)
    build(root, model="look")
    return root


def alone(root, *arguments):
    words = [sys.executable, "-c", COMMAND, "search", *map(str, arguments)]
    return subprocess.run(words, cwd=root, capture_output=True, check=True).stdout


def test_two_processes_find_what_one_finds(root, tmp_path):
    new = photos.save(tmp_path / "new.jpg", 999)
    words = ("a/1.jpg", new, "--not", "id:7", "-n", "25", "--index", root / ".jaxret")
    first, second = run_job(root, words, words)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert second[1] == b""
    assert first[1] == alone(root, *words)


def test_shards_that_two_processes_have_are_searched_as_their_merger(root, tmp_path):
    encoder = next((root / ".jaxret" / "model").iterdir())
    shards = [tmp_path / "one", tmp_path / "two"]
    for part, shard in enumerate(shards, 1):
        build(root, shard, model=str(encoder), shard=Shard(part, 2))
    merge(tmp_path / "both", shards)
    words = ("a/1.jpg", "-n", "30", "--json", "--index")
    first, second = run_job(root, (*words, shards[0]), (*words, shards[1]))
    assert first[0] == second[0] == 0, first[2] + second[2]
    found, merged = json.loads(first[1]), json.loads(alone(root, *words, tmp_path / "both"))
    assert found["searched"] == 30

    def pairs(document):
        return sorted((image["distance"], image["file"]) for image in document["results"])

    assert pairs(found) == pairs(merged)
    assert [image["distance"] for image in found["results"]] == [d for d, _ in pairs(found)]


def test_a_process_without_an_index_ends_the_job_in_both(root, tmp_path):
    words = ("a/1.jpg", "--index")
    (tmp_path / "nothing").mkdir()
    for status, _, error in run_job(
        root, (*words, root / ".jaxret"), (*words, tmp_path / "nothing")
    ):
        assert status == 2
        assert b"there is no index" in error
