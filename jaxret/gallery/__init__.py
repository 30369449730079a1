"""A gallery: codes or vectors with stable ids, searched, changed and kept on disk.

`Gallery` is imported when it is first used: `jaxret.gallery.store` reads a saved one without JAX.
"""

from typing import TYPE_CHECKING, Any

from jaxret.gallery.store import GalleryError

if TYPE_CHECKING:
    from jaxret.gallery.gallery import Gallery

__all__ = ["Gallery", "GalleryError"]


def __getattr__(name: str) -> Any:
    if name != "Gallery":
        raise AttributeError(f"module 'jaxret.gallery' has no attribute {name!r}")
    from jaxret.gallery.gallery import Gallery

    globals()[name] = Gallery
    return Gallery
