import os

import pytest

from jaxret import data, encoder, files, gallery


def temporary_files(folder):
    return [entry.name for entry in folder.iterdir() if entry.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00\xff", b"\x00\xff"),
        ("Größe\n", "Größe\n".encode()),
        ((b"one", memoryview(b"two")), b"onetwo"),
        (b"", b""),
    ],
)
def test_a_file_holds_exactly_what_was_written(tmp_path, content, expected):
    path = tmp_path / "new" / "file"
    files.write_whole(path, b"older and longer than what follows")
    files.write_whole(path, content)
    assert path.read_bytes() == expected
    assert temporary_files(path.parent) == []


@pytest.mark.parametrize("failure", [ValueError("no more"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, failure):
    def pieces():
        yield b"new"
        raise failure

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)):
        files.write_whole(path, pieces())
    assert path.read_bytes() == b"old"
    assert temporary_files(tmp_path) == []


def test_a_full_disk_is_reported_with_the_path_and_leaves_the_old_file(tmp_path, monkeypatch):
    def no_space(handle):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(files.WriteError) as error:
        files.write_whole(path, b"new")
    assert str(error.value) == f"{path}: cannot be written (No space left on device)"
    assert path.read_bytes() == b"old"
    assert temporary_files(tmp_path) == []


@pytest.mark.parametrize("place", ["taken", "file/below"])
def test_a_path_that_cannot_be_a_file_is_named(tmp_path, place):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(files.WriteError, match=f"{tmp_path / place}: cannot be written"):
        files.write_whole(tmp_path / place, b"new")
    assert temporary_files(tmp_path) == []


def test_a_line_break_in_a_path_does_not_break_an_error_into_lines(tmp_path):
    folder = tmp_path / "two\nlines"
    readers = {
        encoder.EncoderError: encoder.read,
        data.DataError: lambda path: data.read_image(path, 8),
        gallery.GalleryError: gallery.Gallery.open,
        files.WriteError: lambda path: files.write_whole(path / "x", b""),
    }
    (tmp_path / "a file\n").write_bytes(b"")
    for error, read in readers.items():
        path = tmp_path / "a file\n" if error is files.WriteError else folder
        with pytest.raises(error) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
        assert path.name.replace("\n", "\\n") in str(caught.value)
