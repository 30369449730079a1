"""Google Landmarks v2: its list, where its images lie, and the split of the landmarks report."""

import numpy as np
import pytest
from PIL import Image

from jaxret import data
from jaxret.data.landmarks import Landmark, read_landmarks, split_landmarks

# Rows of the published train.csv: a comma in a quoted url, %-escapes, http and https, .JPG; two
# rows hold the digits 140690 without being of that landmark.
REAL = """id,url,landmark_id
7e4627eb6f721857,https://upload.wikimedia.org/wikipedia/commons/6/6d/Lateral_view_of_one_of_the_buildings.JPG,140690
39e4baa4e58810ac,https://upload.wikimedia.org/wikipedia/commons/7/7f/The_Reaper_%2814069069341%29.jpg,165900
140690de98deb562,https://upload.wikimedia.org/wikipedia/commons/f/f1/Ormont_%28Eifel%29%3B_katholische_Pfarrkirche_St._Margaretha_h.jpg,137389
530535d32be0afea,http://upload.wikimedia.org/wikipedia/commons/0/01/Simulador_de_mercado_en_el_MIDE.jpg,140690
"""


def write_list(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{id},https://example.org/{id}.jpg,{landmark}" for id, landmark in rows]
    (folder / "train.csv").write_text("\n".join(["id,url,landmark_id", *lines]) + "\n")


def make_landmarks(data_dir, counts):
    """Write images of some landmarks, and their list, with one landmark outside of the range."""
    rng, rows = np.random.default_rng(0), []
    for landmark, count in counts.items():
        for i in range(count):
            row = Landmark(f"{landmark:08x}{i:08x}"[::-1], landmark)
            path = data_dir / "gldv2" / row.file
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            rows.append(row)
    write_list(data_dir / "gldv2", [*rows, ("f" * 16, 999), ("e" * 16, 2001)])
    return rows


def test_the_landmark_of_a_row_is_its_last_column_whatever_else_holds_its_digits(tmp_path):
    (tmp_path / "train.csv").write_text(REAL)
    rows = read_landmarks(tmp_path / "train.csv", 140690, 140690)
    assert [row.id for row in rows] == ["7e4627eb6f721857", "530535d32be0afea"]
    assert rows[0].file == "train/7/e/4/7e4627eb6f721857.jpg"
    assert read_landmarks(tmp_path / "train.csv") == []


def test_both_ends_of_the_range_belong_to_it(tmp_path):
    write_list(tmp_path, [(f"{i:016x}", i) for i in (999, 1000, 1500, 2000, 2001)])
    found = read_landmarks(tmp_path / "train.csv")
    assert [row.landmark for row in found] == [1000, 1500, 2000]


def test_images_are_found_below_three_folders_and_made_96_pixels(tmp_path):
    make_landmarks(tmp_path, {1000: 5, 1700: 4})
    train, test = (data.load("landmarks", split, tmp_path) for split in ("train", "test"))
    assert train.images.shape == (7, 96, 96, 3)
    assert test.images.shape == (2, 96, 96, 3)
    assert train.class_names == test.class_names == ("1000", "1700")
    assert test.labels.tolist() == [0, 1] or test.labels.tolist() == [1, 0]
    assert not set(train.names) & set(test.names)


def test_absent_and_torn_files_and_landmarks_of_one_image_are_left_out(tmp_path):
    rows = make_landmarks(tmp_path, {1000: 5, 1001: 2, 1002: 3})
    gone, torn = (tmp_path / "gldv2" / rows[i].file for i in (5, 0))
    gone.unlink()  # landmark 1001 is left with one image
    torn.write_bytes(torn.read_bytes()[:300])
    with pytest.warns(data.SkippedImages, match="1 of 9 files skipped"):
        train = data.load("landmarks", "train", tmp_path)
    assert train.class_names == ("1000", "1002")
    assert len(train.labels) == 3 + 2
    assert train.notes[0] == "1 of 10 listed images are absent, 1 cannot be decoded"
    assert train.notes[1] == "left out: 1 landmarks of a single image"


def test_the_split_is_a_hundredth_of_each_class_then_four_fifths_and_one():
    labels = np.repeat(np.arange(3, dtype=np.int32), (1000, 40, 1))
    parts = split_landmarks(labels)
    assert np.array_equal(np.sum(parts, axis=0), np.ones(len(labels)))
    train, validation, test = (np.bincount(labels[part], minlength=3) for part in parts)
    assert test.tolist() == [10, 1, 0]
    assert validation.tolist() == [198, 8, 0]
    assert train.tolist() == [792, 31, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,url\n", "must name the columns id,url,landmark_id, found 'id,url'"),
        ("id,url,landmark_id\nabc,u,1\n", "line 2: id must be 16 hexadecimal digits, got 'abc'"),
        ("id,url,landmark_id\n" + "a" * 16 + ",u,x\n", "line 2: landmark_id must be a whole"),
        ("id,url,landmark_id\n" + "a" * 16 + ",u\n", "line 2: 2 columns, the header has 3"),
    ],
)
def test_a_list_that_breaks_the_format_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(data.DataError, match=message):
        read_landmarks(tmp_path / "train.csv")


def test_what_is_not_there_is_said_with_where_to_put_it(tmp_path):
    with pytest.raises(data.DataError, match=r"there is no gldv2/train\.csv in .*; put the list"):
        data.load("landmarks", "train", tmp_path)
    write_list(tmp_path / "gldv2", [("a" * 16, 1000)])
    with pytest.raises(data.DataError, match="none of the 1 images of landmarks 1000 to 2000 is"):
        data.load("landmarks", "train", tmp_path)
