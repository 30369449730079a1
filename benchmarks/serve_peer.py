"""The peer of serve.py: a search page with Flask and Annoy, as in many tutorials and theses.

    python benchmarks/serve_peer.py --index DIR

It reads the codes of a jaxret index, builds an Annoy index of them (Hamming distance, 10 trees),
prints its address, and answers GET /api/search?item=ID&k=20 and POST /api/search?k=20 with an
image as the body, decoded and coded as jaxret does it. Flask's own server runs it, on this machine
only; it has no token and no limits.
"""

import argparse
import socket
from pathlib import Path
from typing import Any

TREES = 10


def application(index: Path) -> Any:
    """Return the Flask application of an index."""
    import annoy
    import flask
    import numpy as np

    from jaxret.index import contents, model
    from jaxret.index.reader import view

    with view(index) as seen:
        rows, facts = seen.snapshot, seen.facts["model"]
        ids, codes = np.array(rows.ids), np.array(rows.values)
        names = {row.id: (row.path, row.size) for row in seen.catalogue.rows()}
    trees = annoy.AnnoyIndex(rows.width, "hamming")
    trees.set_seed(0)
    for number, bits in zip(ids.tolist(), bits_of(codes), strict=True):
        trees.add_item(number, bits)
    trees.build(TREES)
    encoder = model.load(index, facts)
    app = flask.Flask(__name__)

    def answer(found: tuple[list[int], list[float]]) -> dict[str, Any]:
        keys = ("id", "distance", "path", "bytes")
        results = [
            dict(zip(keys, (number, int(d), *names[number]), strict=True))
            for number, d in zip(*found, strict=True)
        ]
        return {"results": results}

    @app.get("/")
    def page() -> str:
        return "<!doctype html><form method=post enctype=multipart/form-data><input type=file>"

    @app.get("/api/search")
    def by_item() -> dict[str, Any]:
        number, k = int(flask.request.args["item"]), int(flask.request.args["k"])
        ids, distances = trees.get_nns_by_item(number, k + 1, include_distances=True)
        others = [pair for pair in zip(ids, distances, strict=True) if pair[0] != number][:k]
        return answer(([i for i, _ in others], [d for _, d in others]))

    @app.post("/api/search")
    def by_picture() -> dict[str, Any]:
        picture = contents.decode_bytes(flask.request.get_data(), facts["image_size"])
        bits = bits_of(encoder.encode(picture.pixels[None]))[0]
        k = int(flask.request.args["k"])
        return answer(trees.get_nns_by_vector(bits, k, include_distances=True))

    return app


def bits_of(codes: Any) -> Any:
    """Return the bits of packed codes u32[n w] as numbers, i8[n b]."""
    import numpy as np

    return np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little").astype(np.int8)


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="The folder of a jaxret index.")
    options = parser.parse_args()
    import logging

    import timing  # makes jaxret importable
    from werkzeug.serving import make_server

    assert timing.REPOSITORY
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listening = socket.create_server(("127.0.0.1", 0))
    server = make_server(
        "127.0.0.1", 0, application(options.index), threaded=True, fd=listening.fileno()
    )
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
