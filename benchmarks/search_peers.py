"""Other libraries that search the same gallery: faiss, hnswlib, usearch, PyTorch, CuPy.

A peer is a function (query, k) -> search; the search, called without arguments, gives distances and
rows as NumPy arrays or, on a device, arrays of its library that are complete. This module is no
command.
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

Search = Callable[[], tuple[Any, Any]]  # distances, rows
Peer = Callable[[np.ndarray, int], Search]
LINKS, LINKS_SEEN = 32, 64  # of a node of a graph (twice as many at its base); candidates kept
TILE_BYTES = 2**31  # of distances that a PyTorch or CuPy peer holds at once


def faiss_peers(gallery: np.ndarray, bits: int | None) -> dict[str, Peer]:
    """Return faiss's exact indexes, with 2 threads and with 1; bits None: of float vectors."""
    try:
        import faiss
    except ImportError:
        return {}
    if bits is None:
        index = faiss.IndexFlatL2(gallery.shape[1])
        rows = gallery
    else:
        rows = gallery.view(np.uint8)[:, : -(-bits // 8)]
        index = faiss.IndexBinaryFlat(8 * rows.shape[1])
    index.add(np.ascontiguousarray(rows))

    def peer(threads: int) -> Peer:
        def prepared(query: np.ndarray, k: int) -> Search:
            if bits is not None:
                query = np.ascontiguousarray(query.view(np.uint8)[:, : -(-bits // 8)])

            def run():
                faiss.omp_set_num_threads(threads)
                return index.search(query, k)

            return run

        return prepared

    name = f"faiss {faiss.__version__}"
    return {f"{name} 2 threads": peer(2), f"{name} 1 thread": peer(1)}


def approximate_peers(gallery: np.ndarray, bits: int | None) -> dict[str, Peer]:
    """Return approximate indexes, with 2 threads: faiss's for codes, hnswlib's for vectors."""
    return _graph_of_vectors(gallery) if bits is None else _indexes_of_codes(gallery, bits)


def _graph_of_vectors(gallery: np.ndarray) -> dict[str, Peer]:
    """A graph of 32 links a node that keeps 64 candidates, or as many as are asked for."""
    try:
        import hnswlib
    except ImportError:
        return {}
    graph = hnswlib.Index("l2", gallery.shape[1])
    graph.init_index(len(gallery), ef_construction=LINKS_SEEN, M=LINKS)
    graph.add_items(gallery, num_threads=2)

    def prepared(query: np.ndarray, k: int) -> Search:
        def run():
            graph.set_ef(max(LINKS_SEEN, k))
            return graph.knn_query(query, k, num_threads=2)[::-1]

        return run

    return {f"hnswlib {importlib.metadata.version('hnswlib')}": prepared}


def _indexes_of_codes(gallery: np.ndarray, bits: int) -> dict[str, Peer]:
    """A graph, as above, and tables of hashes.

    The tables are 4 of codes' parts of 16 bits, or of fewer, and are looked up within 2 bits.
    """
    try:
        import faiss
    except ImportError:
        return {}
    if bits % 8:
        return {}
    rows = np.ascontiguousarray(gallery.view(np.uint8)[:, : bits // 8])
    graph = faiss.IndexBinaryHNSW(bits, LINKS)
    graph.hnsw.efConstruction = graph.hnsw.efSearch = LINKS_SEEN
    tables = faiss.IndexBinaryMultiHash(bits, 4, min(16, bits // 4))
    tables.nflip = 2
    faiss.omp_set_num_threads(2)

    def peer(index: Any) -> Peer:
        index.add(rows)

        def prepared(query: np.ndarray, k: int) -> Search:
            query = np.ascontiguousarray(query.view(np.uint8)[:, : bits // 8])

            def run():
                faiss.omp_set_num_threads(2)
                return index.search(query, k)

            return run

        return prepared

    name = f"faiss {faiss.__version__}"
    return {f"{name} BinaryHNSW": peer(graph), f"{name} BinaryMultiHash": peer(tables)}


def usearch_peer(gallery: np.ndarray, bits: int | None) -> dict[str, Peer]:
    """Return usearch's exact search of codes; none above a million rows, where it takes minutes."""
    try:
        import usearch
        from usearch.index import MetricKind
        from usearch.index import search as exact
    except ImportError:
        return {}
    if bits is None or len(gallery) > 1_000_000:
        return {}
    rows = np.ascontiguousarray(gallery.view(np.uint8))

    def prepared(query: np.ndarray, k: int) -> Search:
        packed = np.ascontiguousarray(query.view(np.uint8))

        def run():
            found = exact(rows, packed, k, MetricKind.Hamming, exact=True)
            shape = (len(packed), -1)
            return np.reshape(found.distances, shape), np.reshape(found.keys, shape)

        return run

    return {f"usearch {usearch.__version__} exact": prepared}


def device_peers(gallery: np.ndarray, bits: int | None) -> dict[str, Peer]:
    """Return the searches that PyTorch and CuPy users write, on the accelerator if there is one.

    Codes: products of -1 and +1 with topk; xor and popcount, in PyTorch by shifts and masks, in
    CuPy by a kernel of its own, with topk. Vectors: |x|^2 - 2 xy with topk. Equal distances come in
    any order. Queries and gallery are on the device before the timing starts, as ours are.
    """
    try:
        import torch
    except ImportError:
        return {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = f"PyTorch {torch.__version__}"
    if bits is None:
        return {f"{name} product, topk": _vectors_in_torch(torch, device, gallery)}
    peers = {
        f"{name} ±1 product, topk": _products_in_torch(torch, device, gallery, bits),
        f"{name} xor, popcount, topk": _popcount_in_torch(torch, device, gallery),
    }
    try:
        import cupy
    except ImportError:
        return peers
    if device == "cuda":
        kernel = _popcount_in_cupy(torch, cupy, gallery)
        peers[f"CuPy {cupy.__version__} xor, popcount, PyTorch topk"] = kernel
    return peers


def _tiled(torch, device, distances_of, num_rows: int, bytes_per_pair: int) -> Peer:
    """A running topk over tiles of the gallery whose distances fit TILE_BYTES.

    distances_of: (query tensor, first row, end row) -> [q rows], smaller is nearer.
    """

    def prepared(query, k):
        if isinstance(query, np.ndarray):
            query = torch.from_numpy(np.ascontiguousarray(query)).to(device)
        tile = max(2 * k, TILE_BYTES // (bytes_per_pair * max(1, min(len(query), 1024))))

        def of_queries(part):
            best = None
            for start in range(0, num_rows, tile):
                end = min(start + tile, num_rows)
                distances = distances_of(part, start, end)
                near, rows = torch.topk(distances, min(k, end - start), largest=False, sorted=True)
                rows = rows + start
                if best is not None:
                    near, rows = torch.cat([best[0], near], 1), torch.cat([best[1], rows], 1)
                    near, order = torch.topk(near, min(k, near.shape[1]), largest=False)
                    rows = torch.gather(rows, 1, order)
                best = near, rows
            return best

        @torch.inference_mode()
        def run():
            found = [of_queries(part) for part in query.split(1024)]
            near, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
            if device == "cuda":
                torch.cuda.synchronize()
            return near, rows

        return run

    return prepared


def _products_in_torch(torch, device, gallery, bits):
    kind = torch.float16 if device == "cuda" else torch.float32  # both hold 256 exactly

    def signs(words):
        shifts = torch.arange(32, device=device, dtype=torch.int32)[None, None]
        ones = (words[:, :, None] >> shifts) & 1
        return (2 * ones - 1).reshape(len(words), -1)[:, :bits].to(kind)

    parts = torch.from_numpy(gallery.view(np.int32)).split(4_000_000)
    laid = torch.cat([signs(part.to(device)) for part in parts]).T.contiguous()

    def distances(words, start, end):
        return (bits - signs(words.view(torch.int32)) @ laid[:, start:end]) * 0.5

    return _tiled(torch, device, distances, len(gallery), 2 * laid.element_size())


def _popcount_in_torch(torch, device, gallery):
    laid = torch.from_numpy(gallery.view(np.int32)).to(device).T.contiguous()

    def popcount(x):  # PyTorch has none: bits are added in pairs, fours and eights (Warren 2012)
        x = x - ((x >> 1) & 0x55555555)
        x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
        x = (x + (x >> 4)) & 0x0F0F0F0F
        return ((x * 0x01010101) >> 24) & 0x3F

    def distances(words, start, end):
        words = words.view(torch.int32)
        total = None
        for word in range(laid.shape[0]):
            part = popcount(words[:, word, None] ^ laid[word, None, start:end])
            total = part if total is None else total + part
        return total.to(torch.float16 if device == "cuda" else torch.float32)

    return _tiled(torch, device, distances, len(gallery), 16)


def _popcount_in_cupy(torch, cupy, gallery):
    kernel = cupy.RawKernel(
        """extern "C" __global__ void hamming(
            const unsigned int* query, const unsigned int* gallery, unsigned short* distances,
            long long queries, long long first, long long rows, long long all_rows, int words) {
          long long row = blockIdx.x * (long long)blockDim.x + threadIdx.x;
          if (row >= rows) return;
          for (long long q = blockIdx.y; q < queries; q += gridDim.y) {
            int bits = 0;
            for (int w = 0; w < words; ++w)
              bits += __popc(query[q * words + w] ^ gallery[w * all_rows + first + row]);
            distances[q * rows + row] = bits;
          }
        }""",
        "hamming",
    )
    laid = cupy.ascontiguousarray(cupy.asarray(gallery).T)
    words, all_rows = laid.shape

    def distances(query, start, end):
        queries, rows = len(query), end - start
        found = cupy.empty((queries, rows), cupy.uint16)
        packed = cupy.from_dlpack(query.view(torch.int32))
        sizes = tuple(map(cupy.int64, (queries, start, rows, all_rows)))
        # Both libraries work on the default stream, so the kernel and topk follow one another.
        kernel(
            (-(-rows // 256), min(queries, 65535)), (256,),
            (packed, laid, found, *sizes, cupy.int32(words)),
        )  # fmt: skip
        return torch.from_dlpack(found.astype(cupy.float16))  # topk takes no unsigned integers

    return _tiled(torch, "cuda", distances, all_rows, 4)


def _vectors_in_torch(torch, device, gallery):
    laid = torch.from_numpy(gallery).to(device)
    norms = (laid * laid).sum(1)[None]

    def distances(query, start, end):
        return norms[:, start:end] - 2 * query @ laid[start:end].T  # + |y|^2, which orders nothing

    return _tiled(torch, device, distances, len(gallery), 8)


if __name__ == "__main__":
    import timing

    timing.no_command(__file__, "search.py and search_device.py")
