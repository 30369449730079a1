import numpy as np
import pytest
from PIL import Image

from jaxret import data
from jaxret.data.labels import read_labels


@pytest.fixture
def folder(tmp_path):
    """Twenty images in two sub-folders that are no classes."""
    for i in range(20):
        path = tmp_path / "photos" / str(2000 + i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def files():
    return [f"{2000 + i % 2}/{i}.png" for i in range(20)]


def write(path, lines, header="file,label"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def load_both(folder, labels):
    return [data.load(folder, split, None, 4, labels=labels) for split in ("train", "test")]


def test_one_label_an_image_gives_a_class_each(folder, tmp_path):
    labels = write(tmp_path / "a.csv", [f"{f},{'odd' if i % 3 else 'even'}" for i, f in
                                        enumerate(files())])  # fmt: skip
    both = load_both(folder, labels)
    assert sorted(name for images in both for name in images.names) == sorted(files())
    for images in both:
        assert images.class_names == ("even", "odd")
        assert images.labels.dtype == np.int32
        for name, image, label in zip(images.names, images.images, images.labels, strict=True):
            assert label == (files().index(name) % 3 > 0)
            assert np.array_equal(image, data.read_image(folder / name, 4))
        assert f"labels: {labels}" in images.notes


@pytest.mark.parametrize("form", ["lines", "bars"])
def test_several_labels_an_image_give_a_matrix(folder, tmp_path, form):
    def labels_of(file):
        i = files().index(file)
        return [name for name, step in (("all", 1), ("two", 2), ("five", 5)) if i % step == 0]

    lines = [f"{f},{'|'.join(labels_of(f))}" for f in files()]
    if form == "lines":
        lines = [f"{f},{label}" for f in files() for label in labels_of(f)]
    for images in load_both(folder, write(tmp_path / "a.csv", lines)):
        assert images.class_names == ("all", "five", "two")
        assert images.labels.dtype == bool
        assert images.labels.shape == (len(images.images), 3)
        for name, row in zip(images.names, images.labels, strict=True):
            assert set(np.array(images.class_names)[row]) == set(labels_of(name))


@pytest.mark.parametrize("name", data.PROTOCOLS)
def test_several_labels_have_every_protocol(folder, tmp_path, name):
    labels = write(tmp_path / "a.csv", [f"{f},a|b" for f in files()[:-1]] + [f"{files()[-1]},"])
    protocol = data.load_protocol(name, folder, None, 4, labels=labels)
    assert sum(len(part.images) for part in (protocol.gallery, protocol.query)) <= 20
    for part in protocol[1:4]:
        assert part.labels.shape == (len(part.images), 2)
        assert len(part.images) > 0
    if name == "test":
        assert "2 classes: a (19), b (19); 1 without a label" in data.describe(protocol)


def test_an_empty_label_says_that_an_image_has_none(folder, tmp_path):
    labels = write(tmp_path / "a.csv", [f"{f},{'' if i < 10 else 'b'}" for i, f in
                                        enumerate(files())])  # fmt: skip
    for images in load_both(folder, labels):
        expected = [-1 if files().index(name) < 10 else 0 for name in images.names]
        assert images.labels.tolist() == expected
        assert images.class_names == ("b",)


def test_a_file_of_labels_may_lie_in_the_folder_of_images(folder):
    write(folder / "labels.csv", [f"{f},x" for f in files()])
    assert load_both(folder, "labels.csv")[0].class_names == ("x",)
    assert load_both(folder, folder / "labels.csv")[0].class_names == ("x",)


def test_a_split_of_the_folder_is_kept(folder, tmp_path):
    (folder / "2000").rename(folder / "train")
    (folder / "2001").rename(folder / "test")
    names = {f"{'test' if i % 2 else 'train'}/{i}.png" for i in range(20)}
    train, test = load_both(folder, write(tmp_path / "a.csv", [f"{f},x" for f in names]))
    assert set(train.names) == {name for name in names if name.startswith("train")}
    assert set(test.names) == {name for name in names if name.startswith("test")}


def test_images_stay_on_the_side_that_their_sub_folders_gave_them(folder, tmp_path):
    labels = write(tmp_path / "a.csv", [f"{f},{f.split('/')[0]}" for f in files()])
    for by_csv, split in zip(load_both(folder, labels), ("train", "test"), strict=True):
        by_folder = data.load(folder, split, None, 4)
        assert by_csv.names == by_folder.names
        assert np.array_equal(by_csv.labels, by_folder.labels)


def test_spreadsheets_write_it_otherwise_and_are_read(tmp_path):
    content = '\ufeffid, label ,file\r\n1,"one, two",a b.png\r\n\r\n2, three|four ,./c//d.png\r\n'
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert read_labels(tmp_path / "a.csv") == {
        "a b.png": ("one, two",),
        "c/d.png": ("three", "four"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line must name the columns file,label, found ''"),
        (b"file,label\n", "no line after the header"),
        (b"name,class\na,b\n", "must name the columns file,label, found 'name,class'"),
        (b"file;label\na;b\n", "must name the columns file,label, found 'file;label'"),
        (b"file,label,label\na,b,c\n", "must name the columns file,label"),
        (b"file,label\na,b\na,b\n", "line 3: 'a' has the label 'b' already, in line 2"),
        (b"file,label\na,b\n./a,b\n", "line 3: './a' has the label 'b' already, in line 2"),
        (b"file,label\na,b|b\n", "line 2: 'a' has the label 'b' already, in line 2"),
        (b"file,label\na,b||c\n", r"line 2: an empty label in 'b\|\|c'"),
        (b"file,label\na,b\na,\n", "line 3: 'a' has an empty label and another one"),
        (b"file,label\na\n", "line 2: 1 columns, the header has 2"),
        (b"file,label\na,b,c\n", "line 2: 3 columns, the header has 2"),
        (b"file,label\n,b\n", "line 2: no file"),
        (b'file,label\na,"b\n', "line 2: unexpected end of data"),
        (b"file,label\na,caf\xe9\n", "not UTF-8 .byte 0xe9 at 16"),
        ("file,label\na,b\n".encode("utf-16"), "not UTF-8 .byte 0xff at 0"),
    ],
)
def test_a_bad_file_of_labels_is_named_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(data.DataError, match=message) as caught:
        read_labels(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_files_and_images_without_a_line_are_refused(folder, tmp_path):
    lines = [f"{f},x" for f in files()]
    labels = write(tmp_path / "a.csv", [*lines, "2000/21.png,x", "../a.csv,x"])
    with pytest.raises(data.DataError, match=r"2 of 22 files are not in .*first is '2000/21.png'"):
        load_both(folder, labels)
    labels = write(tmp_path / "a.csv", lines[:-1])
    with pytest.raises(data.DataError, match=r"1 images of .* have no line, the first is '2001/19"):
        load_both(folder, labels)
    with pytest.raises(data.DataError, match=r"there is no file of labels none\.csv, here or in "):
        load_both(folder, "none.csv")


def test_a_data_set_with_labels_of_its_own_takes_no_others(tmp_path):
    with pytest.raises(data.DataError, match="digits has labels of its own"):
        data.load("digits", "train", labels=tmp_path / "a.csv")
