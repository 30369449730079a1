"""Networks and their composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxret import models


def shapes_of(model, image_shape, draw=lambda parameters: parameters):
    """What a model gives for three images, without computing it."""
    images = jnp.zeros((3, *image_shape))
    init = lambda: model.init_with_output(jax.random.key(0), images, draw)  # noqa: E731
    (parameters, pixels), _ = jax.eval_shape(init)
    return parameters.shape, pixels.shape


def counted(variables):
    """Numbers of a model or of a part of it."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def first(module, *inputs):
    """First variables, by one program: op by op they take seconds."""
    return jax.jit(module.init)(jax.random.key(0), *inputs)


def start(module, *inputs):
    """Variables of the right shapes, drawn by NumPy: compiling how a module starts takes long."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.1, leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("hidden", [(500, 100), (64,), (50, 40, 30)])
def test_a_dense_autoencoder_gives_parameters_and_pixels(image_shape, hidden):
    model = models.MODELS["dense"](image_shape, 20, hidden)
    assert shapes_of(model, image_shape, lambda p: p[:, :10]) == ((3, 20), (3, *image_shape))


def test_the_thesis_network_has_its_number_of_parameters():
    model = models.dense_autoencoder((28, 28, 1), 20)
    draw = lambda p: p[:, :10]  # noqa: E731
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), draw)
    )
    encoder = 784 * 500 + 500 + 500 * 100 + 100 + 100 * 20 + 20
    decoder = 10 * 100 + 100 + 100 * 500 + 500 + 500 * 784 + 784
    assert counted(variables) == encoder + decoder


@pytest.mark.slow
def test_weights_start_by_xavier_and_biases_at_zero():
    model = models.dense_autoencoder((28, 28, 1), 20)
    encoder = model.encoder.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    first = encoder["params"]["Dense_0"]
    limit = np.sqrt(6 / (784 + 500))
    assert 0.99 * limit < np.abs(first["kernel"]).max() <= limit
    np.testing.assert_array_equal(first["bias"], np.zeros(500))


@pytest.mark.slow
def test_whole_equals_encoding_drawing_and_decoding_in_turn():
    model = models.dense_autoencoder((4, 4, 1), 6, (8,))
    images = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1))
    draw = lambda p: jnp.tanh(p[:, :3])  # noqa: E731
    variables = model.init(jax.random.key(0), images, draw)
    parameters, pixels = model.apply(variables, images, draw)
    alone = model.apply(variables, images, method="encode")
    np.testing.assert_allclose(alone, parameters, rtol=1e-6)
    decoded = model.apply(variables, draw(alone), method="decode")
    np.testing.assert_allclose(decoded, pixels, rtol=1e-5, atol=1e-6)


def test_the_last_relu_can_be_left_out():
    images = jax.random.uniform(jax.random.key(0), (20, 4, 4, 1))
    features = {
        last_relu: models.DenseEncoder((8, 6), last_relu).init_with_output(
            jax.random.key(1), images
        )[0]
        for last_relu in (True, False)
    }
    assert (features[False] < 0).any()
    np.testing.assert_array_equal(features[True], np.maximum(features[False], 0))


SHAPES = [(28, 28, 1), (32, 32, 3)]
ENCODERS = {
    "dense": lambda shape: models.DenseEncoder((12,)),
    "max": lambda shape: models.ConvEncoder((4, 3)),
    "average": lambda shape: models.ConvEncoder((4, 3, 2), pool="average"),
    "normalised": lambda shape: models.ConvEncoder((4,), batch_norm=True, dropout=0.5),
    "conv and dense": lambda shape: models.ConvEncoder((4, 3), (12,), dropout=0.5),
    "gru": lambda shape: models.RecurrentEncoder((6, 5)),
    "lstm": lambda shape: models.RecurrentEncoder((6,), "lstm"),
    "patches": lambda shape: models.AttentionEncoder((4, 4), 8, 1, 2),
    "rows": lambda shape: models.AttentionEncoder((1, shape[1]), 8, 1, 2),
}
DECODERS = {
    "dense": lambda shape: models.DenseDecoder((12,), shape),
    "upsampling": lambda shape: models.ConvDecoder((2, 3, 4), shape),
    "transposed": lambda shape: models.ConvDecoder((2, 3, 4), shape, up="transposed"),
    "dense and upsampling": lambda shape: models.ConvDecoder((3, 4), shape, (12,), batch_norm=True),
    "dense and transposed": lambda shape: models.ConvDecoder((3, 4, 2), shape, (), "transposed"),
    "gru": lambda shape: models.RecurrentDecoder((6, 5), shape),
    "lstm": lambda shape: models.RecurrentDecoder((6,), shape, "lstm"),
    "patches": lambda shape: models.AttentionDecoder(shape, (4, 4), 8, 1, 2),
    "rows": lambda shape: models.AttentionDecoder(shape, (1, shape[1]), 8, 1, 2),
}
# 28 or 32 halved three times, two channels: what a decoder without dense layers begins with.
MAP = 4 * 4 * 2


# Every encoder and decoder once, all other pairs with --soak.
PAIRS = [
    pytest.param(encoder, decoder, marks=[] if i == j else pytest.mark.soak)
    for i, encoder in enumerate(ENCODERS)
    for j, decoder in enumerate(DECODERS)
]


@pytest.mark.parametrize("image_shape", SHAPES)
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_every_encoder_goes_with_every_decoder(encoder, decoder, image_shape):
    parts = ENCODERS[encoder](image_shape), DECODERS[decoder](image_shape)
    model = models.Autoencoder(*parts, 2 * MAP)
    halves = lambda parameters: parameters[:, :MAP]  # noqa: E731
    assert shapes_of(model, image_shape, halves) == ((3, 2 * MAP), (3, *image_shape))


@pytest.mark.parametrize("image_shape", SHAPES[1:])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_decoder_without_dense_layers_refuses_other_codes_than_its_map(encoder, image_shape):
    parts = ENCODERS[encoder](image_shape), DECODERS["upsampling"](image_shape)
    reason = r"exactly its first map, 4 x 4 x 2 = 32 numbers, got "
    with pytest.raises(ValueError, match=reason + "10"):
        shapes_of(models.Autoencoder(*parts, 10), image_shape)
    if encoder == "average":  # the one whose last map is that of the decoder
        model = models.Autoencoder(*parts, None)
        assert shapes_of(model, image_shape) == ((3, MAP), (3, *image_shape))
    else:
        with pytest.raises(ValueError, match=reason):
            shapes_of(models.Autoencoder(*parts, None), image_shape)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (9, 20, 2)])
@pytest.mark.parametrize("head_size", [20, None])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_named_model_rebuilds_its_images_shape(name, head_size, image_shape):
    options = {"patch": (3, 4)} if name == "attention" and image_shape[0] == 9 else {}
    if name in ("conv_up", "conv_transposed") and head_size:
        with pytest.raises(ValueError, match="exactly its first map"):
            shapes_of(models.MODELS[name](image_shape, head_size), image_shape)
        return
    model = models.MODELS[name](image_shape, head_size, **options)
    parameters, pixels = shapes_of(model, image_shape)
    assert pixels == (3, *image_shape)
    assert head_size is None or parameters == (3, head_size)


def test_the_vae_of_gamal_and_mohamed_has_its_number_of_parameters():
    model = models.MODELS["dense"]((28, 28, 1), 2 * 2, (512,))
    draw = lambda parameters: parameters[:, :2]  # noqa: E731
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), draw)
    )
    params = variables["params"]
    assert counted([params["encoder"], params["head"]]) == 403_972
    assert counted(params["decoder"]) == 403_728


def test_without_a_head_the_code_is_the_encoders_last_layer():
    model = models.MODELS["dense"]((28, 28, 1), None, (32,))
    images = jax.random.uniform(jax.random.key(1), (5, 28, 28, 1))
    variables = model.init(jax.random.key(0), images, lambda code: code)
    assert counted(variables) == 784 * 32 + 32 + 32 * 784 + 784  # Chollet 2016, the simplest
    code = model.apply(variables, images, method="encode")
    assert code.shape == (5, 32)
    assert (code >= 0).all()


GEOMETRY = {"m1": (92, 7 * 7 * 8), "m2": (92, 7 * 7 * 32), "m3": (96, 11 * 11 * 32)}


@pytest.mark.parametrize(("name", "geometry"), GEOMETRY.items())
def test_the_landmarks_report_has_maps_of_7_and_of_11(name, geometry):
    side, size = geometry
    model = models.SIZED_MODELS[f"landmarks_{name}"]((side, side, 3), None)
    assert shapes_of(model, (side, side, 3)) == ((3, size), (3, side, side, 3))
    with pytest.raises(ValueError, match=r"the decoder makes \d+ x \d+ pixels of images of 90"):
        models.SIZED_MODELS[f"landmarks_{name}"]((90, 90, 3), None)


def test_96_pixels_give_m1_the_map_of_92():
    block, next_block = models.strided.LANDMARK_MODELS["m1"]["down"]
    assert [block.side(side) for side in (96, 92)] == [16, 15]
    assert [next_block.side(side) for side in (16, 15)] == [7, 7]


@pytest.mark.parametrize("layer", [(4, 3, 2), (4, 5, 3, 1), (4, 6, 2, 1), (4, 5, 2, 1)])
def test_a_transposed_layer_spreads_each_pixels_kernel(layer):
    up = models.strided.Up(*layer)
    module = models.strided.transposed(up)
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 4, 3)))
    variables = start(module, x)
    kernel = np.asarray(variables["params"]["kernel"])[::-1, ::-1]  # Flax correlates
    whole = np.zeros((2, *(3 * up.stride + up.kernel,) * 2, up.features))
    for i in range(4):
        for j in range(4):
            rows, columns = (slice(k * up.stride, k * up.stride + up.kernel) for k in (i, j))
            whole[:, rows, columns] += np.einsum("nc,abcf->nabf", x[:, i, j], kernel)
    expected = whole[:, up.padding :, up.padding :][:, : up.side(4), : up.side(4)]
    expected = expected + np.asarray(variables["params"]["bias"]).reshape(1, 1, 1, -1)
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_a_classifier_describes_32_pixels_by_2048_numbers():
    model = models.ConvClassifier(4)
    features, logits = shapes_of(model, (32, 32, 3), lambda z: z)
    assert features == (3, 2 * 2 * 512)
    assert logits == (3, 4)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), lambda z: z)
    )
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    convolutions = sum(9 * a * b + 3 * b for a, b in [*pairs, (512, 512)])  # a bias, and a norm
    dense = sum((a + 1) * b for a, b in [(2048, 4096), (4096, 4096), (4096, 4)])
    assert counted(variables["params"]) == convolutions + dense


# Outputs beyond and within few channels (layers.FEW_CHANNELS).
@pytest.mark.parametrize("features", [5, 1])
@pytest.mark.parametrize(
    ("how", "plain"),
    [
        ("upsampling", lambda features: nn.Conv(features, (3, 3))),
        ("transposed", lambda features: nn.ConvTranspose(features, (3, 3), (2, 2))),
    ],
)
def test_doubling_equals_its_definition(how, plain, features):
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    layer = models.layers.DoublingConv(features, how)
    params = start(layer, x)["params"]
    bias = jnp.arange(1.0, features + 1)
    params["bias"] = bias[None, None, None]
    large = x.repeat(2, axis=1).repeat(2, axis=2) if how == "upsampling" else x
    expected = plain(features).apply({"params": params | {"bias": bias}}, large)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, atol=1e-5)


# Few channels with even and odd sides, and more than few (layers.FEW_CHANNELS).
@pytest.mark.parametrize(("channels", "sides"), [(1, (6, 4)), (3, (7, 5)), (5, (7, 5))])
def test_a_convolution_is_flaxs_with_the_same_names_and_first_weights(channels, sides):
    x = jax.random.normal(jax.random.key(0), (2, *sides, channels))
    ours, flaxs = models.layers.Conv(6), nn.Conv(6, (3, 3), kernel_init=models.layers.XAVIER)
    params = first(ours, x)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, first(flaxs, x)["params"])
    params["bias"] = jnp.arange(6.0)

    def energy(layer):
        result = lambda params: jnp.sum(layer.apply({"params": params}, x) ** 2)  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.value_and_grad(result))(params))

    for one, other in zip(energy(ours), energy(flaxs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sides", [(6, 4), (7, 5), (1, 1)])
def test_pooling_takes_the_largest_or_the_mean_of_what_a_window_holds_after_relu(sides):
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    rows, columns = (range(0, side, 2) for side in sides)
    for how, reduce in (("max", np.max), ("average", np.mean)):
        after = np.maximum(x, 0)
        expected = [
            [reduce(after[:, i : i + 2, j : j + 2], axis=(1, 2)) for j in columns] for i in rows
        ]
        pooled = models.layers.relu_pool(jnp.asarray(x), how)
        np.testing.assert_allclose(pooled, np.moveaxis(expected, 2, 0), rtol=1e-6)


@pytest.mark.parametrize("sides", [(8, 4), (2, 2), (7, 5), (6, 5)])
def test_overlapping_windows_are_pooled_as_flax_does(sides):
    x, g = (np.random.default_rng(i).normal(size=(2, *sides, 3)).astype("f") for i in (0, 1))
    g = g[:, : -(-sides[0] // 2), : -(-sides[1] // 2)]
    flaxs = lambda x: nn.max_pool(nn.relu(x), (3, 3), (2, 2), "SAME")  # noqa: E731
    results = []
    for pool in (models.layers.overlapping_pool, flaxs):
        pooled, back = jax.vjp(pool, jnp.asarray(x))
        results.append((pooled, *back(g)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_the_largest_have_the_gradient_of_jnp_max_and_equal_ones_share_it():
    windows = jax.random.randint(jax.random.key(0), (4, 3, 2, 5, 2, 3), 0, 3).astype(jnp.float32)
    g = jax.random.normal(jax.random.key(1), (4, 3, 5, 3))
    plain, back = jax.vjp(lambda windows: jnp.max(windows, axis=(2, 4)), windows)
    ours, ours_back = jax.vjp(models.layers.window_max, windows)
    np.testing.assert_array_equal(ours, plain)
    np.testing.assert_allclose(ours_back(g)[0], back(g)[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (0, 3, 3, 4)])
def test_noinline_changes_neither_value_nor_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    for noinline in (models.layers.noinline, jax.vmap(models.layers.noinline)):
        energy = lambda x, noinline=noinline: jnp.sum(noinline(jnp.sin(x)) ** 2)  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(energy))(x)
        np.testing.assert_allclose(value, jnp.sum(jnp.sin(x) ** 2), rtol=1e-6)
        np.testing.assert_allclose(gradient, jnp.sin(2 * x), atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is recomputed")
def test_noinline_is_a_branch_only_where_it_is_differentiated():
    compiled = lambda f: jax.jit(f).lower(jnp.ones((2, 2))).compile().as_text()  # noqa: E731
    energy = lambda x: jnp.sum(models.layers.noinline(jnp.sin(x)) ** 2)  # noqa: E731
    assert " conditional(" not in compiled(energy)
    assert " conditional(" in compiled(jax.grad(energy))


def test_an_odd_side_is_cropped_to_what_the_encoder_had():
    assert models.layers.levels((28, 9), 3) == [(28, 9), (14, 5), (7, 3), (4, 2)]


@pytest.mark.soak
def test_a_row_decides_nothing_of_the_rows_that_a_recurrent_decoder_wrote_before():
    decoder = models.RecurrentDecoder((6,), (5, 4, 1))
    z = jax.random.normal(jax.random.key(0), (2, 3))
    variables = start(decoder, z)
    tall = models.RecurrentDecoder((6,), (8, 4, 1))
    np.testing.assert_allclose(
        tall.apply(variables, z)[:, :5], decoder.apply(variables, z), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_a_recurrent_encoder_reads_the_rows_in_their_order():
    encoder = models.RecurrentEncoder((6,))
    images = jax.random.uniform(jax.random.key(0), (2, 5, 4, 1))
    variables = start(encoder, images)
    assert not np.allclose(
        encoder.apply(variables, images), encoder.apply(variables, images[:, ::-1]), atol=1e-3
    )


@pytest.mark.soak
def test_a_patch_is_a_piece_of_the_image():
    encoder = models.AttentionEncoder((2, 3), 8, 1, 2)
    images = jnp.zeros((1, 4, 6, 1))
    variables = start(encoder, images)
    params = variables["params"]
    assert params["positions"].shape == (1, 4, 8)
    assert params["Dense_0"]["kernel"].shape == (6, 8)

    def tokens(images):  # without attention or normalisation: what the first layer makes of them
        _, state = encoder.apply(variables, images, capture_intermediates=True)
        return state["intermediates"]["Dense_0"]["__call__"][0][0]

    changed = images.at[0, 3, 1].set(1.0)  # in the lower left of the four patches
    assert (tokens(changed) != tokens(images)).any(axis=1).tolist() == [False, False, True, False]


@pytest.mark.slow
def test_attention_lets_every_patch_hear_of_every_other():
    encoder = models.AttentionEncoder((2, 2), 8, 1, 2)
    images = jax.random.uniform(jax.random.key(0), (1, 4, 4, 1))
    variables = start(encoder, images)
    one = encoder.apply(variables, images).reshape(4, 8)
    other = encoder.apply(variables, images.at[0, 0, 0].set(5.0)).reshape(4, 8)
    assert (np.abs(one - other).max(axis=1) > 1e-4).all()


@pytest.mark.slow
def test_dropout_and_batch_statistics_only_matter_in_training():
    encoder = models.ConvEncoder((4,), batch_norm=True, dropout=0.5)
    images = jax.random.uniform(jax.random.key(0), (8, 6, 6, 1))
    variables = start(encoder, images)

    @jax.jit
    def run(key):
        rngs = {"dropout": jax.random.key(key)}
        return encoder.apply(variables, images, True, mutable=["batch_stats"], rngs=rngs)

    (one, state), (other, _) = run(0), run(1)
    assert (one == 0).mean() > 0.3
    assert not np.array_equal(one, other)
    assert not np.array_equal(*(jax.tree.leaves(s["batch_stats"])[0] for s in (state, variables)))
    alone, batch = encoder.apply(variables, images[:1]), encoder.apply(variables, images)
    np.testing.assert_allclose(alone, batch[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: models.MODELS["attention"](s, 5, (5, 4)), "5 x 4 pixels do not fill .* 28 x 28"),
        (lambda s: models.MODELS["attention"](s, 5, (0, 4)), "0 x 4 pixels do not fill .* 28 x 28"),
        (lambda s: models.MODELS["conv_dense_up"](s, 5, pool="min"), "pool must be one of max, av"),
        (lambda s: models.MODELS["conv_dense_up"](s, 5, up="x"), "up must be one of upsampling"),
        (lambda s: models.MODELS["gru"](s, 5, cell="rnn"), "cell must be one of gru, lstm, got"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(make((28, 28, 1)), (28, 28, 1))
