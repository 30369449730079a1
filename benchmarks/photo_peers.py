"""EfficientNet-Lite0 in PyTorch and in ONNX Runtime, with the weights of jaxret's network.

Each function returns photos u8[n h w 3] -> features f32[n 1280], both in the host's memory. This
module is no command; encode_photos.py uses it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import timing

if __name__ == "__main__":  # before JAX, which a word of help does not need
    timing.no_command(__file__, "encode_photos.py")
    raise SystemExit

import numpy as np

from jaxret.models.efficientnet import EPSILON, LITE0

Features = Callable[[np.ndarray], np.ndarray]
Tree = Mapping[str, Any]


def walk(layer: Callable, add: Callable, x: Any) -> Any:
    """Return the network's last map, given what a layer does: layer(x, names, stride, clip)."""
    x, number = layer(x, ("stem",), 2, True), 0
    for group in LITE0:
        for repeat in range(group.repeats):
            block = f"block_{number}"
            y = layer(x, (block, "expand"), 1, True) if group.expansion > 1 else x
            y = layer(y, (block, "depthwise"), 1 if repeat else group.stride, True)
            y = layer(y, (block, "project"), 1, False)
            x, number = add(x, y) if repeat else y, number + 1
    return layer(x, ("head",), 1, True)


def _at(tree: Tree, names: tuple[str, ...]) -> Tree:
    for name in names:
        tree = tree[name]
    return tree


def _out_in(kernel: Any) -> np.ndarray:
    """Return a kernel [h w in out] in the order of PyTorch and ONNX."""
    return np.ascontiguousarray(np.transpose(np.asarray(kernel), (3, 2, 0, 1)))


def pytorch(plain: Tree, folded: Tree, *, channels_last: bool, fold: bool) -> Features:
    """Return the network in eager PyTorch.

    Args:
        plain: variables of the plain form.
        folded: those of the folded form.
        channels_last: the order of maps in memory; False is PyTorch's own.
        fold: whether normalisation is a part of the kernels; False is the network as published.
    """
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def tensor(array):
        return torch.from_numpy(np.array(array)).to(device)

    def prepared(names):
        if fold:
            layer = _at(folded["params"], names)
            return tensor(_out_in(layer["kernel"])).to(memory_format=layout), tensor(layer["bias"])
        kernel = _out_in(_at(plain["params"], names)["conv"]["kernel"])
        norm = _at(plain["params"], names)["norm"]
        measured = _at(plain["batch_stats"], names)["norm"]
        norm = [tensor(a) for a in (measured["mean"], measured["var"], norm["scale"], norm["bias"])]
        return tensor(kernel).to(memory_format=layout), norm

    ready: dict[tuple[str, ...], Any] = {}

    def layer(x, names, stride, clip):
        if names not in ready:
            ready[names] = prepared(names)
        kernel, other = ready[names]
        size, groups = kernel.shape[2], x.shape[1] // kernel.shape[1]
        padding = size // 2
        if stride > 1:  # TensorFlow's rule, where the map's length is even
            before = (size - 2) // 2
            x, padding = functional.pad(x, (before, size - 2 - before) * 2), 0
        bias = other if fold else None
        y = functional.conv2d(x, kernel, bias, stride, padding, groups=groups)
        y = y if fold else functional.batch_norm(y, *other, eps=EPSILON)
        return functional.relu6(y) if clip else y

    @torch.inference_mode()
    def features(photos):
        x = torch.from_numpy(photos).to(device).permute(0, 3, 1, 2).float()
        x = ((x - 127) / 128).contiguous(memory_format=layout)
        return walk(layer, torch.add, x).mean((2, 3)).cpu().numpy()

    return features


def onnx_runtime(folded: Tree) -> Features:
    """Return the folded network in ONNX Runtime, with its own optimisations."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []

    def node(kind, *inputs, **attributes):
        name = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def layer(x, names, stride, clip):
        own, name = _at(folded["params"], names), "/".join(names)
        kernel = _out_in(own["kernel"])
        depthwise = names[-1] == "depthwise"
        y = node(
            "Conv", x, constant(f"{name}/kernel", kernel), constant(f"{name}/bias", own["bias"]),
            strides=[stride, stride], auto_pad="SAME_UPPER",
            group=kernel.shape[0] if depthwise else 1,
        )  # fmt: skip
        return node("Clip", y, "zero", "six") if clip else y

    for name, value in (("zero", 0), ("six", 6), ("mean", 127), ("deviation", 128)):
        constant(name, value)
    x = node("Cast", "photos", to=TensorProto.FLOAT)
    x = node("Transpose", node("Div", node("Sub", x, "mean"), "deviation"), perm=[0, 3, 1, 2])
    maps = walk(layer, lambda a, b: node("Add", a, b), x)
    nodes.append(helper.make_node("GlobalAveragePool", [maps], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    photos = helper.make_tensor_value_info("photos", TensorProto.UINT8, ["n", "h", "w", 3])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", None])
    graph = helper.make_graph(nodes, "EfficientNet-Lite0", [photos], [found], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=onnxruntime.get_available_providers()
    )
    return lambda photos: session.run(["features"], {"photos": photos})[0]
