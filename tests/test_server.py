"""What `jaxret serve` answers: the documents of the schema, equal to those of the command."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import typing
from pathlib import Path

import made_photos as photos
import numpy as np
import pytest
from serving import SIDE, client, ids_of, index_by_hand

from jaxret.app import schema
from jaxret.app.server import views
from jaxret.app.server.answers import StaleError
from jaxret.app.server.serve import prepared
from jaxret.index import PhotoIndexError, groups
from jaxret.index.catalogue import Catalogue

__all__ = ["client"]
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = photos.make(tmp_path_factory.mktemp("answers") / "photos", 12)
    photos.save(made / "a/deep/er.jpg", 3)  # the same picture as a/3.jpg
    (made / os.fsdecode(b"c/caf\xe9.jpg")).write_bytes((made / "c/1.jpg").read_bytes())
    index_by_hand(made)
    return made


@pytest.fixture(scope="module")
def ids(root):
    return ids_of(root / ".jaxret")


@pytest.fixture
def jaxret(capsysbinary, monkeypatch, root):
    monkeypatch.chdir(root)
    return photos.Command(capsysbinary)


def jpeg(seed=0):
    file = io.BytesIO()
    photos.picture(seed).save(file, "JPEG")
    return file.getvalue()


def conforms(value, expected):
    """Whether a value of JSON is what a type of the schema says."""
    if typing.is_typeddict(expected):
        hints = typing.get_type_hints(expected, include_extras=True)
        needed = {
            name
            for name, hint in hints.items()
            if typing.get_origin(hint) is not typing.NotRequired
        }
        names = {name for name in value if not name.endswith("_base64")}
        return needed <= names <= hints.keys() and all(
            conforms(value[name], hints[name]) for name in names
        )
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.NotRequired:
        return conforms(value, arguments[0])
    if origin is list:
        return isinstance(value, list) and all(conforms(item, arguments[0]) for item in value)
    if origin is types.UnionType:
        return any(conforms(value, one) for one in arguments)
    if expected is float:
        return isinstance(value, float | int)
    return type(value) is expected


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/api/info", schema.InfoDocument),
        ("/api/search?item=1&not=2&k=3", schema.SearchDocument),
        ("/api/items?limit=3", schema.ItemsDocument),
        ("/api/items/1", schema.ItemDocument),
        ("/api/duplicates?max=3", schema.DuplicatesDocument),
        ("/api/items/999", schema.ErrorDocument),
    ],
)
def test_each_answer_is_the_document_that_the_schema_says(client, path, document):
    found = client.ask(path).json
    assert found.pop("schema") == 1
    assert conforms(found, document)


def test_the_command_prints_documents_of_the_same_schema(jaxret):
    for arguments, document in (
        (("search", "id:1"), schema.SearchDocument),
        (("duplicates",), schema.DuplicatesDocument),
    ):
        found = json.loads(jaxret(*arguments, "--json").out)
        assert found.pop("schema") == 1
        assert conforms(found, document)


def test_the_rule_of_documents_finds_what_breaks_it():
    good = {"error": {"code": "a", "message": "b"}}
    assert conforms(good, schema.ErrorDocument)
    for wrong in (
        {},
        {**good, "more": 1},
        {"error": {"code": "a"}},
        {"error": {"code": 1, "message": "b"}},
    ):
        assert not conforms(wrong, schema.ErrorDocument)
    assert not conforms({"ids": ["1"]}, schema.IgnoredDocument)


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("item=1", ["id:1"]),
        ("item=1&k=3", ["id:1", "-n", "3"]),
        ("item=1&max=30", ["id:1", "--max-distance", "30"]),
        ("item=1&item=4&not=6", ["id:1", "id:4", "--not", "id:6"]),
        ("item=1&in=b&in=a/deep", ["id:1", "--in", "b", "--in", "a/deep"]),
        ("item=1&label=c", ["id:1", "--label", "c"]),
        ("item=1&newer=2023-11-14T22:13:26", ["id:1", "--newer", "2023-11-14T22:13:26"]),
    ],
)
def test_a_search_is_that_of_the_command(client, jaxret, query, arguments):
    found = client.ask(f"/api/search?{query}").json
    told = json.loads(jaxret("search", *arguments, "--json").out)
    assert found.pop("took_ms") >= 0
    assert found.pop("revision") > 0
    for image in found["results"]:
        assert image.pop("thumb") == f"/thumb/{image['id']}?v={image['digest'][:8]}"
    assert found == told
    assert found["results"] or "newer" in query


def test_an_upload_is_searched_by_its_code(client, root, ids):
    found = client.upload((root / "b/2.jpg").read_bytes(), "?k=5").json
    assert (found["results"][0]["id"], found["results"][0]["distance"]) == (ids["b/2.jpg"], 0)
    by_id = client.ask(f"/api/search?item={ids['b/2.jpg']}&k=4").json
    assert [image["id"] for image in found["results"][1:]] == [i["id"] for i in by_id["results"]]
    assert found["query"] == [{"name": "-", "file": None, "id": None, "negative": False}]
    mixed = client.upload(jpeg(5), "?item=1&not=2").json
    assert [query["id"] for query in mixed["query"]] == [None, 1, 2]


def test_wrong_requests_are_told_apart(client):
    cases = {
        "/api/search": (422, "no_query"),
        "/api/search?not=1": (422, "no_query"),
        "/api/search?item=1&item=2&max=3": (422, "max"),
        "/api/search?item=999": (404, "no_such_image"),
        "/api/search?item=1&k=0": (422, "k"),
        "/api/search?item=1&k=1&k=2": (422, "k"),
        "/api/search?item=1&max=-1": (422, "max"),
        "/api/search?item=1&newer=yesterday": (422, "newer"),
        "/api/search?" + "item=1&" * 51: (422, "item"),
        "/api/items?after=x": (422, "after"),
        "/api/items?limit=201": (422, "limit"),
        "/api/duplicates?keep=best": (422, "keep"),
        "/api/nothing": (404, "not_found"),
    }
    for path, expected in cases.items():
        reply = client.ask(path)
        assert (reply.status, reply.json["error"]["code"]) == expected, path
    assert client.ask("/api/info", method="DELETE").json["error"]["code"] == "method"
    assert client.upload(SVG, Content_Type="image/svg+xml").status == 422


def test_pages_show_every_image_once_the_newest_first(client, ids):
    seen, after = [], ""
    for _ in range(10):
        page = client.ask(f"/api/items?limit=4{after}").json
        seen += page["images"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}&revision={page['revision']}"
    assert sorted(image["id"] for image in seen) == sorted(ids.values())
    dates = [image["modified"] for image in seen]
    assert dates == sorted(dates, reverse=True)
    inside = client.ask("/api/items?in=a/deep").json["images"]
    assert [image["path"] for image in inside] == ["a/deep/er.jpg"]


def test_info_counts_folders_and_classes(client, ids):
    info = client.ask("/api/info").json
    assert {one["name"]: one["images"] for one in info["folders"]} == {
        "a": 5, "a/deep": 1, "b": 4, "c": 5,
    }  # fmt: skip
    assert [one["name"] for one in info["labels"]] == ["a", "b", "c"]
    assert (info["images"], info["bits"], info["skipped"]) == (14, 64, 0)


def test_a_name_that_is_no_text_is_valid_json(client, ids):
    image = client.ask(f"/api/items/{ids[os.fsdecode(b'c/caf' + bytes([0xE9]) + b'.jpg')]}").json[
        "image"
    ]
    assert image["path"] == "c/caf\ufffd.jpg"
    assert image["path_base64"] == "Yy9jYWbpLmpwZw=="
    reply = client.ask(f"/original/{image['id']}")
    assert reply.headers["content-disposition"].endswith("''caf%EF%BF%BD.jpg")


def test_duplicates_are_those_of_the_command_and_can_be_ignored(client, jaxret, root, ids):
    told = json.loads(jaxret("duplicates", "--max-distance", "0", "--json").out)
    found = client.ask("/api/duplicates?max=0").json
    assert (found["total"], found["next"], found["searched"]) == (2, None, 14)
    for group in found["groups"]:
        for image in (group["keeper"], *group["members"]):
            del image["thumb"]
    assert found["groups"] == told["groups"]
    pair = [ids["a/3.jpg"], ids["a/deep/er.jpg"]]
    sent = {"method": "POST", "Content_Type": "application/json"}
    reply = client.ask("/api/ignore", body=json.dumps({"ids": pair}).encode(), **sent)
    assert reply.json == {"schema": 1, "ids": pair}
    assert conforms({"ids": pair}, schema.IgnoredDocument)
    file = root / ".jaxret" / groups.IGNORED
    assert file.read_text().endswith("# a/3.jpg, a/deep/er.jpg\n")
    assert client.ask("/api/duplicates?max=0").json["total"] == 2  # equal bytes stay duplicates
    for body in (
        b"",
        b"[]",
        b'{"ids":[1]}',
        b'{"ids":[1,"2"]}',
        b'{"ids":[1,2],"x":1}',
        b"[" * 9999,
    ):
        assert client.ask("/api/ignore", body=body, **sent).status == 422
    assert client.ask("/api/ignore", body=b'{"ids":[1,999]}', **sent).status == 404
    file.unlink()
    file.mkdir()
    try:
        reply = client.ask("/api/ignore", body=b'{"ids":[1,2]}', **sent)
        assert (reply.status, reply.json["error"]["code"]) == (409, "not_written")
    finally:
        file.rmdir()


def test_a_newer_generation_is_seen_by_the_next_request(client, root, ids):
    before = client.ask("/api/items?limit=2").json
    new = photos.save(root / "c/new.jpg", 77)
    try:
        assert client.ask("/api/items?limit=2").json == before
        index_by_hand(root)
        found = client.upload(new.read_bytes()).json
        assert found["revision"] == before["revision"] + 1
        assert found["results"][0]["path"] == "c/new.jpg"
        old = f"/api/items?after={before['next']}&revision={before['revision']}"
        reply = client.ask(old)
        assert (reply.status, reply.json["error"]["code"]) == (409, "revision_gone")
        assert client.ask("/api/info").json["images"] == 15
    finally:
        new.unlink()
        index_by_hand(root)


def test_a_compiled_search_of_a_large_index_gives_the_same_and_never_an_old_generation(
    client, monkeypatch, root
):
    asked = "/api/search?item=3&k=9", "/api/search?item=3&item=5&not=1&k=9"
    kept = client.page.answers.views
    before = [client.ask(path).json["results"] for path in asked]
    monkeypatch.setattr(views, "LARGE", 1)
    try:
        kept.compile()
        assert kept._compiled.rows.compiled is not None
        assert [client.ask(path).json["results"] for path in asked] == before
        old = kept._compiled
        photos.save(root / "c/later.jpg", 93)
        index_by_hand(root)
        assert client.ask(f"/api/search?item={ids_of(root / '.jaxret')['c/later.jpg']}").json
        deadline = time.monotonic() + 30
        while kept._compiled is old and time.monotonic() < deadline:
            time.sleep(0.01)
        images = client.ask("/api/info").json["images"]
        assert len(kept._compiled.rows.values) == images
        assert len(client.ask("/api/search?item=3&k=100").json["results"]) == images - 1
    finally:
        kept._compiled = None


def test_an_upload_is_decoded_anew_for_a_new_encoder(client, monkeypatch):
    sides = iter([SIDE + 1, SIDE])
    monkeypatch.setattr(client.page.answers, "side", lambda: next(sides))
    assert client.upload(jpeg()).status == 200
    assert next(sides, None) is None


def test_pixels_of_another_encoder_are_not_searched(client):
    with pytest.raises(StaleError):
        client.page.answers.search([], [], 1, None, groups.Filters(), np.zeros((1, 1, 3), np.uint8))


def test_an_index_of_vectors_is_searched_by_its_images_only(client, root):
    with Catalogue(root / ".jaxret", write=True) as catalogue:
        model = catalogue.facts()["model"]
        try:
            catalogue.set_facts(model=model | {"image_size": None})
            reply = client.upload(jpeg())
            assert (reply.status, reply.json["error"]["code"]) == (422, "no_encoder")
            assert client.ask("/api/search?item=1").status == 200
        finally:
            catalogue.set_facts(model=model)


def test_what_is_missing_is_told_in_one_line(root, tmp_path, monkeypatch):
    with pytest.raises(PhotoIndexError, match="there is no index"), prepared(tmp_path):
        pass
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(PhotoIndexError, match=r"pip install 'jaxret\[app\]'"), prepared(root):
        pass


def test_the_page_asks_no_other_host():
    for file in (Path(schema.__file__).parent / "static").iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`]+", file.read_text()))
        assert not addresses, file
        assert "innerHTML" not in file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0, 0.02, 0.3])
def test_it_ends_when_it_is_told_to(root, number, delay, tmp_path):
    command = [sys.executable, "-m", "jaxret.app.cli", "serve", str(root), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=tmp_path, **pipes) as process:
        try:
            address = process.stdout.readline()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S{43}\n", address)
            time.sleep(delay)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
