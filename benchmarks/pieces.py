"""Pack data files into pieces that a machine with a limit on uploads takes, and unpack them there.

    python benchmarks/pieces.py pack --data_dir=DATA --to=PIECES [--mebibytes=55]
    python benchmarks/pieces.py unpack --data_dir=DATA PIECES/1 [PIECES/2 ...]

pack writes MNIST as it is and CIFAR-10 as lossless WebP mosaics, 103 MB instead of 184, into
numbered folders of at most --mebibytes: two for CIFAR-10, one for MNIST. unpack writes the files in
their published form into a data folder, one piece at a time or all at once; jaxret checks their
sha256 when it reads them. Needs NumPy and Pillow.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import timing  # noqa: F401  makes jaxret importable where it is not installed

CIFAR = "cifar-10-batches-bin"
SIDE, TILES = 32, 100  # a mosaic is TILES x TILES images
RECORD = 1 + 3 * SIDE * SIDE


def mosaic(content: bytes) -> tuple[bytes, bytes]:
    """Return (WebP mosaic, labels) of a binary file of CIFAR-10."""
    from PIL import Image

    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    tiles = records[:, 1:].reshape(TILES, TILES, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
    picture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tiles.reshape(TILES * SIDE, TILES * SIDE, 3))).save(
        picture, "WEBP", lossless=True, quality=60, exact=True
    )
    return picture.getvalue(), records[:, 0].tobytes()


def binary(picture: bytes, labels: bytes) -> bytes:
    """Return the binary file of CIFAR-10 that `mosaic` was made from."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    tiles = pixels.reshape(TILES, SIDE, TILES, SIDE, 3).transpose(0, 2, 4, 1, 3)
    first = np.frombuffer(labels, np.uint8)[:, None]
    return np.concatenate([first, tiles.reshape(len(first), -1)], axis=1).tobytes()


def packed(data_dir: Path) -> list[dict[str, bytes]]:
    """Return groups of files that stay in one piece: name -> content."""
    groups = []
    for path in sorted((data_dir / CIFAR).glob("*.bin")):
        picture, labels = mosaic(path.read_bytes())
        name = f"{CIFAR}/{path.stem}"
        groups.append({f"{name}.webp": picture, f"{name}.labels": labels})
        print(f"{path.name}: {len(picture) / 1e6:.1f} MB", flush=True)
    small = [data_dir / CIFAR / "batches.meta.txt", *sorted((data_dir / "mnist").glob("*"))]
    found = {str(path.relative_to(data_dir)): path.read_bytes() for path in small if path.is_file()}
    return [*groups, found]


def pack(data_dir: Path, to: Path, limit: int) -> None:
    """Write pieces 1, 2, ... of at most `limit` bytes."""
    from jaxret.files import write_whole

    number, used = 1, 0
    for group in packed(data_dir):
        size = sum(map(len, group.values()))
        if used and used + size > limit:
            number, used = number + 1, 0
        used += size
        for name, content in group.items():
            write_whole(to / str(number) / name, content)
    print(f"{number} pieces in {to}")


def unpack(data_dir: Path, pieces: list[Path]) -> None:
    """Write the published files of some pieces."""
    from jaxret.files import write_whole

    for piece in pieces:
        for path in sorted(path for path in piece.rglob("*") if path.is_file()):
            target = data_dir / path.relative_to(piece)
            if path.suffix == ".webp":
                labels = path.with_suffix(".labels").read_bytes()
                write_whole(target.with_suffix(".bin"), binary(path.read_bytes(), labels))
            elif path.suffix != ".labels":
                write_whole(target, path.read_bytes())
    print(f"unpacked into {data_dir}")


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("pack", "unpack"), help="Choose what to do.")
    parser.add_argument("pieces", nargs="*", type=Path, help="Unpack these folders.")
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="Read or write the published files here."
    )
    parser.add_argument("--to", type=Path, help="Write the pieces into this folder.")
    parser.add_argument(
        "--mebibytes", type=float, default=55, help="Keep pieces below this (default: 55)."
    )
    options = parser.parse_intermixed_args()  # flags may stand between the verb and the folders
    if options.verb == "pack" and options.to is None:
        parser.error("pack needs --to, a folder for the pieces")
    missing = [str(piece) for piece in options.pieces if not piece.is_dir()]
    if missing or (options.verb == "unpack" and not options.pieces):
        parser.error(f"unpack needs folders of pieces; not there: {', '.join(missing) or 'any'}")
    if options.verb == "pack":
        pack(options.data_dir, options.to, int(options.mebibytes * 2**20))
    else:
        unpack(options.data_dir, options.pieces)


if __name__ == "__main__":
    main()
