"""Pictures: the only package that knows matplotlib.

Each function takes arrays and returns a Figure. `title` names the data set and the run; `subtitle`
says what the picture shows, and each function has a default for it. Both may be of any text.
"""

from jaxret.viz.curves import (
    class_sizes,
    loss_curves,
    numbered_points,
    precision_curves,
    score_curves,
)
from jaxret.viz.images import (
    first_layer,
    image_grid,
    reconstructions,
    retrieval_grid,
    rows_across_classes,
    same_class,
)
from jaxret.viz.latents import (
    bit_balance,
    bit_verdict,
    code_strips,
    confusion_matrix,
    latent_scatter,
)

__all__ = [
    "bit_balance",
    "bit_verdict",
    "class_sizes",
    "code_strips",
    "confusion_matrix",
    "first_layer",
    "image_grid",
    "latent_scatter",
    "loss_curves",
    "numbered_points",
    "precision_curves",
    "reconstructions",
    "retrieval_grid",
    "rows_across_classes",
    "same_class",
    "score_curves",
]
