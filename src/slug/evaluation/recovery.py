"""What may bring back what a pipeline forgot: other words for it, and other weights.

Whoever has the edited weights may reword a prompt and train on. The negative of an edit's low-rank part and the merging with
the original take knowledge of the original: they say how much of the edit must be undone until the concept is back.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from slug import files
from slug.core.edit import Edit, kept
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import inversion
from slug.evaluation.canvas_prompts import Concept, Request
from slug.models.diffusion import Diffusion

WORDINGS = (
    "a picture of a {object} in {style} style",
    "{object}, {style} style",
    "a {style} {object}",
    "a {object} drawn in the style of {style}",
)
RANKS = (1, 4, 16)  # of an edit's part that is subtracted
SHARES = (0.1, 0.3, 0.5)  # of the original in a merge


class Other(NamedTuple):
    """Another way to ask for a concept.

    Attributes:
        attack: "wording", "synonym" or "language".
        form: the wording, or the word and its language.
        wording: of the prompt; see canvas_prompts.Request.
        word: for the concept's name; empty for the name itself.
    """

    attack: str
    form: str
    wording: str = ""
    word: str = ""

    def prompts(self, asked: Sequence[Request], kind: str) -> list[str]:
        """The prompts of Requests in this way."""
        found = [r._replace(wording=self.wording or r.wording) for r in asked]
        if self.word:
            found = [r._replace(style=self.word) if kind == "style" else r._replace(object=self.word) for r in found]
        return [r.prompt for r in found]


def read_words(path: Path) -> dict[str, list[tuple[str, str]]]:
    """{name, casefolded: [(other word, language)]} of a CSV with the columns name, alias and language; each once.

    SlugError where a row has no word, or no language.
    """
    found: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
    for i, row in enumerate(files.read_csv(path, ("name", "alias", "language"), "give --words, or leave it out"), 2):
        name, word, language = plain_name(row["name"]), row["alias"].strip(), row["language"].strip().lower()
        if not (name and word and language):
            raise SlugError(
                f"row {i} of {path} lacks a name, a word or its language (en, de, ...); fill it in, or take it out"
            )
        found.setdefault(name.casefold(), {}).setdefault((word.casefold(), language), (word, language))
    return {name: list(words.values()) for name, words in found.items()}


def others(concept: Concept, words: dict[str, list[tuple[str, str]]]) -> list[Other]:
    """All other ways to ask for a concept; a word that is its name, in whatever language, is no other way."""
    found, name = [Other("wording", wording, wording) for wording in WORDINGS], plain_name(concept.name).casefold()
    for word, language in words.get(name, []):
        if plain_name(word).casefold() == name:
            continue
        form = word if language == "en" else f"{word} ({language})"
        found.append(Other("synonym" if language == "en" else "language", form, "", word))
    return found


def low_rank(change: torch.Tensor, rank: int) -> torch.Tensor:
    """The best approximation of a change by a matrix of this rank; a vector is its own."""
    if change.ndim < 2:
        return change
    u, sizes, vh = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    return ((u[:, :rank] * sizes[:rank]) @ vh[:rank]).view_as(change).to(change.dtype)


def weakened(edit: Edit) -> Iterator[tuple[str, str, Edit]]:
    """(attack, form, what it leaves of the edit): without its low-rank part, and merged with the original."""
    for rank in RANKS:
        left = {n: c - low_rank(c, rank) for n, c in edit.changes.items()}
        yield "negative of the low-rank part", f"rank {rank}", Edit(left, edit.layer, edit.step)
    for share in SHARES:
        yield "merging", f"{share:.0%} of the original", edit.scaled(1 - share)


def retained(
    diffusion: Diffusion, prompts: Sequence[str], latents: torch.Tensor, *, steps: int, rate: float, seed: int = 0
) -> Edit:
    """The change of all weights by training on retained pictures alone, at the pipeline's present weights.

    Args:
        prompts: N texts.
        latents: (N, C, H, W) of their pictures; see Diffusion.latents.
        steps: of AdamW with learning rate `rate`, inversion.BATCH pictures each.
    Raises:
        SlugError: the loss is NaN or infinite.
    """
    names, schedule = list(diffusion.tensors), diffusion.training_schedule()
    parameters = [diffusion.tensors[n] for n in names]
    g = torch.Generator().manual_seed(seed)
    with kept(diffusion, names) as base:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
        try:
            for p in parameters:
                p.requires_grad_(True)
            with torch.enable_grad():
                for _ in range(steps):
                    loss = inversion.denoising_loss(diffusion, prompts, latents, schedule, g)
                    if not torch.isfinite(loss):
                        raise SlugError(f"the loss on retained pictures is {loss.item()} at learning rate {rate:g}")
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        finally:
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
        changes = {n: diffusion.tensors[n].detach() - base[n] for n in names}
    return Edit(changes, "retained pictures", float(steps))
