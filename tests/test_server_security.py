"""Each defence of `jaxret serve`, over sockets."""

import io
import os
import shutil
import socket
import struct
import tempfile
import time
import zlib

import made_photos as photos
import pytest
from PIL import Image
from serving import ids_of, index_by_hand, serving

from jaxret.app.output import json_bytes
from jaxret.app.server import uploads
from jaxret.app.server.decoders import Decoders
from jaxret.app.server.security import HEADERS, RefusedError, hosts_of
from jaxret.app.server.serve import prepared
from jaxret.index import PhotoIndexError

ROUTES = (
    "/", "/static/app.css", "/static/app.js", "/api/info", "/api/search?item=1", "/api/items",
    "/api/items/1", "/api/duplicates", "/thumb/1", "/image/1", "/original/1", "/nothing",
)  # fmt: skip
LATITUDE = 47.123456


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folders for what a module's tests need: photos with their index, and what is outside."""
    root = photos.make(tmp_path_factory.mktemp("served") / "photos", 9)
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (LATITUDE, 0.0, 0.0), 3: "E", 4: (8.5, 0.0, 0.0)})
    photos.save(root / "a/gps.jpg", 50, exif=exif)
    (root / "a/script.jpg").write_text("<html><script>alert(1)</script></html>")
    index_by_hand(root)
    return root


@pytest.fixture(scope="module")
def client(site):
    with serving(site / ".jaxret") as running:
        yield running


@pytest.fixture(scope="module")
def ids(site):
    return ids_of(site / ".jaxret")


def jpeg(seed=0, size=(64, 48)):
    file = io.BytesIO()
    photos.picture(seed, size).save(file, "JPEG")
    return file.getvalue()


def png_of(width, height):
    """The header of a PNG that says how large it is, and hardly more."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_of(frames):
    """A GIF of many frames of one pixel."""
    frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0\xff\0\0\0\xff\0" + frame * frames + b";"


@pytest.mark.parametrize(
    "target",
    [
        "/thumb/../../etc/passwd", "/thumb/..", "/thumb/%2e%2e%2fetc%2fpasswd",
        "/thumb/..%2f..%2fetc%2fpasswd", "/original/%2Fetc%2Fpasswd", "/static/../cli.py",
        "/static/..%2fcli.py", "/static//etc/passwd", "/thumb/%00", "/thumb/1%00.jpg", "/thumb/%ff",
        "/thumb/100000000000000000000", "/original/999999999999999999", "/thumb/-1", "/thumb/1.0",
        "/thumb/01", "/thumb/1/", "/thumb/", "/thumb/%D9%A1", "//thumb/1", "/api/items/..",
        "/api/items?in=../..&after=..%2f", "/api/search?item=../1", "/api/search?item=-1",
        "/api/search?item=1&k=1001", "/api/search?item=1&max=nan", "/api/search?item=1&x=1",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_index(client, target):
    reply = client.get_raw(target)
    assert reply.status in (404, 422)
    assert b"root:" not in reply.body
    assert set(reply.json) == {"schema", "error"}


def test_a_link_in_the_place_of_a_photo_shows_nothing(client, site, ids, tmp_path):
    photo, number = site / "b/1.jpg", ids["b/1.jpg"]
    facts, before = photo.stat(), photo.read_bytes()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(99).ljust(len(before), b"\0")[: len(before)])
    os.utime(secret, ns=(facts.st_mtime_ns, facts.st_mtime_ns))  # as large and as old
    photo.unlink()
    try:
        photo.symlink_to(secret)
        for route in ("thumb", "image", "original"):
            reply = client.ask(f"/{route}/{number}")
            assert (reply.status, reply.json["error"]["code"]) == (409, "changed")
        secret.write_bytes(before)  # a link to what was indexed is the photo
        os.utime(secret, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
        assert client.ask(f"/original/{number}").body == before
        photo.unlink()
        assert client.ask(f"/original/{number}").json["error"]["code"] == "missing"
        os.mkfifo(photo)
        assert client.ask(f"/original/{number}").status == 409
    finally:
        photo.unlink(missing_ok=True)
        photo.write_bytes(before)
        os.utime(photo, ns=(facts.st_mtime_ns, facts.st_mtime_ns))


def test_only_its_own_names_are_answered(client):
    port = client.port
    wrong = ["evil.com", f"evil.com:{port}", f"127.0.0.1.evil.com:{port}", f"localhost.:{port}"]
    wrong += ["", "127.0.0.1", f"127.0.0.1:{port + 1}", f"user@127.0.0.1:{port}", f"0.0.0.0:{port}"]
    for host in wrong:
        assert client.raw("GET /api/info HTTP/1.1", f"Host: {host}").status == 400, host
    own = f"Host: 127.0.0.1:{port}"
    assert client.raw("GET /api/info HTTP/1.1", own, own).status == 400
    assert client.raw("GET /api/info HTTP/1.1").status == 400
    assert client.raw("GET /api/info HTTP/1.0").status == 400
    for host in ("127.0.0.1", "[::1]", "LOCALHOST", "localhost"):
        assert client.raw("GET /api/info HTTP/1.1", f"Host: {host}:{port}").status == 200, host
    assert hosts_of("192.168.1.5", 80) == {b"192.168.1.5", b"192.168.1.5:80"}


def test_other_pages_are_refused_and_get_no_leave_to_ask(client):
    own = f"http://127.0.0.1:{client.port}"
    for site in ("cross-site", "same-site"):
        assert client.ask("/thumb/1", Sec_Fetch_Site=site).status == 403
    for origin in ("http://evil.com", "null", f"http://localhost:{client.port}", f"{own}0"):
        assert client.ask("/api/info", Origin=origin).status == 403
        assert client.upload(b"x", Origin=origin).status == 403
    assert client.ask("/api/info", Origin=own, Sec_Fetch_Site="same-origin").status == 200
    assert client.ask("/api/info", Sec_Fetch_Site="none").status == 200
    for path in ("/api/search", "/api/ignore", "/"):
        reply = client.ask(path, method="OPTIONS", Access_Control_Request_Method="POST")
        assert reply.status == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""],
)
def test_what_a_form_can_send_is_not_taken(client, kind):
    assert client.upload(jpeg(), Content_Type=kind).status == 415
    reply = client.ask("/api/ignore", method="POST", body=b'{"ids":[0,1]}', Content_Type=kind)
    assert reply.status == 415


@pytest.mark.parametrize("path", ROUTES)
def test_without_the_token_every_route_says_the_same(client, path):
    replies = [
        client.ask(path, token=None),
        client.ask(path, token="wrong"),
        client.ask(path, token=None, Cookie="jaxret=wrong"),
        client.ask(path, token=None, Cookie=f"other={client.token}"),
        client.ask(f"{path}{'&' if '?' in path else '?'}token=wrong", token=None),
        client.ask(path, token=None, method="POST"),
    ]
    refused = RefusedError(403, "forbidden", client.ask("/", token=None).json["error"]["message"])
    assert {(reply.status, reply.body) for reply in replies} == {(403, refused.body())}
    assert client.ask(path).status == (404 if path == "/nothing" else 200)


def test_the_printed_address_gives_a_cookie_and_leads_away(client):
    path = client.page.address.partition(str(client.port))[2]
    typed = client.ask(path, token=None)
    assert (typed.status, typed.headers["location"]) == (303, "/")
    name, value, *rest = typed.headers["set-cookie"].replace("=", ";", 1).split(";")
    assert value == client.token
    assert {part.strip() for part in rest} == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert client.ask("/api/info", token=None, Cookie=f"x=1; {name}={value}").status == 200
    # From a file or another page, a redirect would be without the cookie: the page leads on.
    elsewhere = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
    opened = client.ask(path, token=None, **elsewhere)
    assert (opened.status, opened.headers["set-cookie"]) == (200, typed.headers["set-cookie"])
    assert b'http-equiv="refresh" content="0;url=/"' in opened.body
    framed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "image"}
    assert client.ask(path, token=None, **framed).status == 403
    assert client.raw(f"GET {path} HTTP/1.1", "Host: evil.com", token=False).status == 400


def test_it_listens_on_this_machine_only_unless_told_otherwise(client, site):
    assert client.page.sockets[0].getsockname() == ("127.0.0.1", client.port)
    index = site / ".jaxret"
    for options in ({"host": "0.0.0.0"}, {"host": "10.9.8.7", "with_token": False}):
        with pytest.raises(PhotoIndexError, match="--host"), prepared(index, **options):
            pass
    with pytest.raises(PhotoIndexError, match="--port 0"), prepared(index, port=client.port):
        pass


def test_an_upload_is_cut_off_at_its_limit(client):
    piece = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    lines = ("POST /api/search HTTP/1.1", f"Host: 127.0.0.1:{client.port}",
             "Content-Type: image/jpeg", "Transfer-Encoding: chunked")  # fmt: skip
    reply = client.raw(*lines, body=piece * 32 + b"0\r\n\r\n")
    assert (reply.status, reply.json["error"]["code"]) == (413, "too_large")
    told = client.raw(*lines[:3], "Content-Length: 40000000")  # by its length, unread
    assert told.status == 413


def test_a_body_that_does_not_come_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(uploads, "IDLE", 0.1)
    lines = ("POST /api/search HTTP/1.1", f"Host: 127.0.0.1:{client.port}",
             "Content-Type: image/jpeg", "Content-Length: 1000")  # fmt: skip
    reply = client.raw(*lines, body=b"x")
    assert (reply.status, reply.json["error"]["code"]) == (400, "slow")


def test_who_comes_when_too_many_wait_is_told_to_come_later(client):
    links = []
    head = (
        f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Length: 9\r\n"
        f"Content-Type: image/jpeg\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    )
    gate = client.page.server.config.app.app.router.routes[5].endpoint.__self__.uploads
    try:
        for _ in range(uploads.RUNNING + uploads.WAITING):
            links.append(socket.create_connection(("127.0.0.1", client.port), 10))
            links[-1].sendall(head.encode())
        end = time.monotonic() + 10
        while gate.count < gate.most and time.monotonic() < end:
            time.sleep(0.01)
        reply = client.upload(jpeg())
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert client.ask("/api/search?item=1").status == 200
    finally:
        for link in links:
            link.close()
    while gate.count and time.monotonic() < end:
        time.sleep(0.01)
    assert client.upload(jpeg()).status == 200


def memory_of(client):
    """Most bytes that a decoding process has held."""
    most = 0
    for process in client.page.decoders._all:
        with open(f"/proc/{process.process.pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        most = max(most, int(lines["VmHWM"].split()[0]) * 1024)
    return most


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_a_bomb_is_refused_by_its_header(client):
    assert client.upload(jpeg()).status == 200
    before = memory_of(client)
    for content in (png_of(30_000, 30_000), png_of(20_000, 5_001)):
        reply = client.upload(content)
        assert (reply.status, reply.json["error"]["code"]) == (413, "too_many_pixels")
    assert client.upload(gif_of(100_000)).status == 200  # the first frame
    assert memory_of(client) < before + 50 * 2**20


def test_what_is_no_image_is_one_422(client):
    for content in (b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe", jpeg()[:300]):
        reply = client.upload(content)
        assert (reply.status, reply.json["error"]["code"]) == (422, "not_an_image")


def test_a_decoder_that_dies_is_replaced(client):
    assert client.upload(jpeg()).status == 200
    for process in client.page.decoders._all:
        process.process.kill()
        process.process.wait()
    statuses = [client.upload(jpeg()).status for _ in range(4)]
    assert set(statuses) == {200, 422}
    assert statuses[-1] == 200
    assert len(client.page.decoders._all) <= 2


@pytest.mark.slow
def test_a_decoder_has_little_memory_and_little_time(monkeypatch):
    monkeypatch.setenv("JAXRET_WORKER_MEMORY", str(400 * 2**20))
    decoders = Decoders(1)
    try:
        large = io.BytesIO()
        Image.new("1", (9_900, 9_900)).save(large, "PNG")
        with pytest.raises(RefusedError) as refused:
            decoders.pixels(large.getvalue(), 32)
        assert refused.value.status == 422
        assert "more memory than there is" in str(refused.value)
        assert decoders.pixels(jpeg(), 32).shape == (32, 32, 3)
    finally:
        decoders.close()


def test_a_file_is_only_ever_saved(client, ids):
    reply = client.ask(f"/original/{ids['a/gps.jpg']}")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''gps.jpg"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_html_in_a_photo_s_clothes_is_not_indexed(client, ids):
    assert "a/script.jpg" not in ids
    assert client.ask("/api/info").json["skipped"] == 1


def test_places_are_in_no_answer_but_the_original(client, ids):
    number = ids["a/gps.jpg"]
    assert b"Exif" in client.ask(f"/original/{number}").body
    for path in (f"/thumb/{number}", f"/image/{number}"):
        body = client.ask(path).body
        assert body[:4] == b"RIFF"
        assert b"EXIF" not in body
        assert b"Exif" not in body
        assert not Image.open(io.BytesIO(body)).getexif()
    for path in (f"/api/items/{number}", f"/api/search?item={number}", "/api/items"):
        body = client.ask(path).body.lower()
        assert b'gps"' not in body
        assert str(LATITUDE)[:5].encode() not in body


def test_nothing_of_an_upload_is_kept_or_logged(client, site, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = sorted(path.name for path in (site / ".jaxret").rglob("*"))
    for seed in range(5):
        assert client.upload(jpeg(seed), "?k=3&in=secret").status == 200
    assert client.upload(b"secret", "?k=3").status == 422
    assert not list(tmp_path.iterdir())
    assert sorted(path.name for path in (site / ".jaxret").rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_every_answer_has_the_headers(client, monkeypatch, capsys):
    replies = [client.ask(path) for path in ROUTES]
    replies += [client.ask("/api/info", token=None), client.ask("/", method="DELETE")]
    replies += [client.get_raw("/thumb/../x"), client.raw("GET / HTTP/1.1", "Host: evil.com")]
    monkeypatch.setattr(client.page.answers, "_seen", lambda *_: 1 / 0)
    replies.append(client.ask("/api/info?"))
    assert [reply.status for reply in replies[-5:]] == [403, 405, 404, 400, 500]
    assert capsys.readouterr().err == "jaxret serve: ZeroDivisionError in GET /api/info\n"
    assert "Traceback" not in replies[-1].body.decode()
    for reply in replies:
        for name, value in HEADERS.items():
            if name in ("Cache-Control", "Content-Security-Policy"):
                assert reply.headers[name.lower()]
            else:
                assert reply.headers[name.lower()] == value
        assert "server" not in reply.headers
        if reply.headers["content-type"] == "application/json":
            assert reply.headers["cache-control"] == "no-store"


def test_a_thumbnail_that_is_named_by_content_is_kept_by_the_browser(client, ids):
    image = client.ask(f"/api/items/{ids['c/0.jpg']}").json["image"]
    kept = client.ask(image["thumb"])
    assert "immutable" in kept.headers["cache-control"]
    for other in ("", "?v=", "?v=00000000"):
        reply = client.ask(f"/thumb/{image['id']}{other}")
        assert (reply.headers["cache-control"], reply.body) == ("no-store", kept.body)


def test_errors_name_no_path(client, site):
    shutil.move(site / ".jaxret/catalogue.sqlite", site / "away")
    try:
        reply = client.ask("/api/info")
    finally:
        shutil.move(site / "away", site / ".jaxret/catalogue.sqlite")
    message = "the index cannot be read; the terminal says why"
    assert (reply.status, reply.body) == (
        500,
        json_bytes({"error": {"code": "index", "message": message}}),
    )
