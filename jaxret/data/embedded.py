"""scikit-learn's handwritten digits, which come with the package: no download."""

import numpy as np

from jaxret.data.sets import DataError, ImageSet, take
from jaxret.data.splits import seeded_fifth


def load_digits(split: str) -> ImageSet:
    """1,797 images of 8 x 8 pixels (Alpaydin and Kaynak 1998), a fixed fifth of each class as test.

    The values 0 to 16 are scaled to 0 to 255. seeded_fifth with seed 0 chooses the test images.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "digits: scikit-learn is not installed: pip install scikit-learn"
        ) from error
    digits = load_digits()
    everything = ImageSet(
        np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None],
        digits.target.astype(np.int32),
        tuple(str(digit) for digit in range(10)),
    )
    test = seeded_fifth(everything.labels, seed=0)
    return take(everything, test if split == "test" else ~test)
