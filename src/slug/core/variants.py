"""Variants of the gradient that SLUG steps along: how each is computed, and what it is called in flags and files.

A variant has two spellings: that of the method (`slug_ws`) and that of the gradient stage (`calc_grad_ws`). Importances
(`calc_importance`) are squared gradients, which SSD reads; no method of SLUG steps along them.
"""

from dataclasses import dataclass, replace

from slug.errors import SlugError


@dataclass(frozen=True)
class Variant:
    """One kind of gradient.

    Attributes:
        contrastive: the forget loss is the contrastive loss instead of 1 - cos (`_o`, paper, section 3).
        preconditioned: the forget gradient is multiplied by the inverse input covariance of the retain set (`_w`).
        spares_others: the forget sets of the other names of the call count as retained data (`_ws`).
        squared: mean squared gradients of the batches: importances.
    """

    contrastive: bool = False
    preconditioned: bool = False
    spares_others: bool = False
    squared: bool = False

    @property
    def suffix(self) -> str:
        """What ends the names: `_o`, `_w`, `_ws`, or nothing."""
        return "_ws" if self.spares_others else "_w" if self.preconditioned else "_o" if self.contrastive else ""

    @property
    def slug(self) -> str:
        """The method's name."""
        return f"slug{self.suffix}"

    @property
    def gradient(self) -> str:
        """The gradient stage's name for it."""
        return f"calc_{'importance' if self.squared else 'grad'}{self.suffix}"

    @property
    def plain(self) -> "Variant":
        """The variant whose gradient this one is computed from."""
        return replace(self, preconditioned=False, spares_others=False)

    def file(self, side: str) -> str:
        """Name of a gradient file, e.g. `forget_grads_ws.pt`; retain gradients ("train") have no other loss than their
        own."""
        return f"{side}_grads{'_importance' if self.squared else ''}{self.suffix if side == 'forget' else ''}.pt"


SLUG = (Variant(), Variant(contrastive=True), Variant(preconditioned=True), Variant(preconditioned=True, spares_others=True))
IMPORTANCES = (Variant(squared=True), Variant(squared=True, contrastive=True))
BY_NAME = {v.slug: v for v in SLUG} | {v.gradient: v for v in (*SLUG, *IMPORTANCES)}


def get(name: str) -> Variant:
    """The variant of either spelling. SlugError for an unknown one."""
    if name not in BY_NAME:
        raise SlugError(f"no gradient is called {name!r}; choose from {', '.join(BY_NAME)}")
    return BY_NAME[name]
