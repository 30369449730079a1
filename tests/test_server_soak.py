"""Three minutes of more than a server is asked for: uploads, searches and indexing at once.

JAXRET_SOAK_SECONDS makes it shorter or longer.
"""

import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import made_photos as photos
import pytest

from jaxret.index.catalogue import Catalogue

SECONDS = float(os.environ.get("JAXRET_SOAK_SECONDS", "180"))
UPLOADS, SEARCHES = 200, 50  # at once; a second
QUERIES = (3, 11, 25)
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc"),
]


class Load:
    """Threads that ask a server, and what they were answered."""

    def __init__(self, port, token):
        self.port, self.token = port, token
        self.end = time.monotonic() + SECONDS
        self.statuses = {"upload": {}, "search": {}}
        self.answers = {}  # (revision, query) -> the results, and how often
        self.seconds = []
        self.wrong = []
        self.lock = threading.Lock()

    def goes_on(self):
        return time.monotonic() < self.end and not self.wrong

    def ask(self, link, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "image/jpeg"}
        link.request("GET" if body is None else "POST", path, body, headers)
        answer = link.getresponse()
        return answer.status, answer.read()

    def note(self, kind, status, query, body):
        with self.lock:
            counts = self.statuses[kind]
            counts[status] = counts.get(status, 0) + 1
            if status == 200:
                found = json.loads(body)
                key = found["revision"], query
                results = [(one["id"], one["path"], one["distance"]) for one in found["results"]]
                first = self.answers.setdefault(key, results)
                if first != results:
                    self.wrong.append(f"two answers to {key}: {first} {results}")

    def upload(self, number, picture):
        while self.goes_on():
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                status, body = self.ask(link, "/api/search?k=10", picture)
                self.note("upload", status, f"upload {number % 4}", body)
                if status == 429:
                    time.sleep(1)
            except OSError as error:
                self.wrong.append(f"upload: {type(error).__name__}: {error}")
            finally:
                link.close()

    def search(self, number):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        turn = time.monotonic()
        while self.goes_on():
            query = QUERIES[number % len(QUERIES)]
            begun = time.monotonic()
            try:
                status, body = self.ask(link, f"/api/search?item={query}&k=10")
            except OSError as error:
                self.wrong.append(f"search: {type(error).__name__}: {error}")
                break
            self.seconds.append(time.monotonic() - begun)
            self.note("search", status, query, body)
            turn += 10 / SEARCHES  # each of 10 threads
            time.sleep(max(0, turn - time.monotonic()))
        link.close()


def memory_of(process):
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])


@pytest.fixture
def root(tmp_path):
    from jaxret.index import build

    made = photos.make(tmp_path / "photos", 60)
    build(made, model="look")
    return made


def true_answers(place, revision, pictures):
    """What a server of this revision must answer to each query."""
    from jaxret.index import search

    queries = {query: query for query in QUERIES}
    queries |= {f"upload {number}": picture for number, picture in enumerate(pictures)}
    answers = {}
    for name, query in queries.items():
        found = search([query], place, n=10)
        answers[revision, name] = [(one.id, one.path, one.distance) for one in found.results]
    return answers


def test_three_minutes_of_load_change_no_answer(root, tmp_path):
    place = root / ".jaxret"
    command = [sys.executable, "-m", "jaxret.app.cli"]
    pictures = []
    for seed in range(4):
        file = io.BytesIO()
        photos.picture(900 + seed, (1600, 1200)).save(file, "JPEG", quality=95)
        pictures.append(file.getvalue())
    serve = [*command, "serve", str(root), "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            address = process.stdout.readline()
            load = Load(int(re.search(r":(\d+)/", address)[1]), address.strip().split("=")[1])
            threads = [
                threading.Thread(target=load.upload, args=(number, pictures[number % 4]))
                for number in range(UPLOADS)
            ]
            threads += [threading.Thread(target=load.search, args=(n,)) for n in range(10)]
            for thread in threads:
                thread.start()
            expected, memory, runs = {}, [], 0
            while load.goes_on():
                runs += 1
                shutil.copy(root / "a/1.jpg", root / f"c/more{runs}.jpg")
                (root / f"c/more{runs - 3}.jpg").unlink(missing_ok=True)
                subprocess.run([*command, "index", str(root), "-q"], check=True)
                with Catalogue(place) as catalogue:
                    revision = catalogue.facts()["revision"]
                expected |= true_answers(place, revision, pictures)
                memory.append((time.monotonic(), memory_of(process)))
            for thread in threads:
                thread.join(60)
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(30)
    told = sorted(load.seconds)
    report = {"statuses": load.statuses, "runs": runs, "p50": told[len(told) // 2],
              "p99": told[int(0.99 * len(told))], "memory": [kb for _, kb in memory]}  # fmt: skip
    print(json.dumps(report))
    assert load.wrong == []
    assert load.statuses["search"].keys() == {200}
    assert load.statuses["upload"].keys() <= {200, 429}
    assert load.statuses["upload"][200] > SECONDS
    same = [key for key in expected if key in load.answers]
    assert len(same) > runs
    assert {key: load.answers[key] for key in same} == {key: expected[key] for key in same}
    third = len(memory) // 3
    early, late = (
        sorted(kb for _, kb in part) for part in (memory[third : 2 * third], memory[-third:])
    )
    assert late[len(late) // 2] < 1.1 * early[len(early) // 2]
    assert report["p99"] < 1
