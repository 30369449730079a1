"""A gallery: codes or vectors with stable ids, searched, changed and kept on disk."""

from jaxret.gallery.gallery import Gallery
from jaxret.gallery.store import GalleryError

__all__ = ["Gallery", "GalleryError"]
