"""scikit-learn's handwritten digits, which come with the package: no download."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxret.data.sets import DataError, ImageSet, take
from jaxret.data.splits import seeded_fifth

_FILE = "datasets/data/digits.csv.gz"


def load_digits(split: str) -> ImageSet:
    """Return 1,797 images of 8 x 8 pixels (Alpaydin 1998), of which a fixed fifth is the test part.

    The values 0 to 16 are scaled to 0 to 255. seeded_fifth with seed 0 chooses the test images.
    """
    # The file is read here, because to import scikit-learn takes seconds.
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("digits: scikit-learn is not installed: pip install scikit-learn")
    file = Path(package.submodule_search_locations[0]) / _FILE
    try:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float64)
    except OSError as error:
        raise DataError(
            f"digits: {file} is missing or damaged; install scikit-learn again"
        ) from error
    everything = ImageSet(
        np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1),
        rows[:, -1].astype(np.int32),
        tuple(str(digit) for digit in range(10)),
        notes=("split: a fixed fifth of each class is the test part",),
    )
    test = seeded_fifth(everything.labels, seed=0)
    return take(everything, test if split == "test" else ~test)
