"""Groups of settings that several stages share, and what follows the protocol; slug.settings holds those of each stage.

Fields are named as the flags are (see slug.cli).
"""

from dataclasses import dataclass

from slug import files, protocols
from slug.cli import Amount, Count, Finite, Folder, Fraction, Pairs, Seed, Share, Whole, flag, follow
from slug.files import checked_name

MAX_FORGET = 0.02  # forget accuracy up to which a step counts as forgetting, on the validation split
SIGMAS = 3.5  # standard deviations by which the margins of a forgotten name must lie below 0


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs; every stage has these."""

    device: str = flag("auto", "cpu, cuda, cuda:1, ...; auto takes CUDA where there is one")
    seed: Seed = flag(0, "seed of all random draws")
    workers: Whole = flag(2, "processes that decode images; 0 decodes in the stage's own process")
    precision: str = flag(
        "fp32", "autocast of evaluations where no answer changes; never of gradients", choices=("fp32", "bf16", "fp16")
    )
    result_dir: Folder = flag("results", "folder of the results, relative to the repository's root")
    protocol: str = flag(
        "ours",
        "rules of this project or of the paper's published code: see docs/reproduce.md",
        choices=tuple(protocols.BY_NAME),
    )

    @property
    def rules(self) -> protocols.Protocol:
        """The protocol."""
        return protocols.get(self.protocol)


class Following:
    """Settings with a group `run`; flags that were left out follow its protocol."""

    run: Run

    def __post_init__(self) -> None:
        follow(self, self.run.rules)


@dataclass(frozen=True)
class Ruled(Following):
    """Settings of runs whose rules may have been frozen before."""

    frozen: str = flag("", "JSON of rules that were frozen before the run: every record carries its hash")

    @property
    def frozen_rules(self) -> dict[str, str]:
        """What records say of --frozen. SlugError if the file is missing."""
        if not self.frozen:
            return {}
        return {"frozen": files.file_hash(files.existing(self.frozen, "frozen rules", "give --frozen, or leave it out"))}


@dataclass(frozen=True)
class ForgetRule:
    """When a name counts as forgotten, on the validation split."""

    max_forget: Fraction = flag(MAX_FORGET, "forget accuracy, as a fraction, up to which a step counts as forgetting")
    sigmas: Amount = flag(SIGMAS, "standard deviations by which the margins of a forgotten name must lie below 0")


STANDARD = ForgetRule()


@dataclass(frozen=True)
class Model:
    """Which CLIP is meant."""

    model: str = flag("ViT-B-32", "open_clip architecture or local-dir:FOLDER")
    pretrained: str = flag("", "open_clip tag or weight file; 'random' for untrained weights")
    clip_model_id: str = flag("", "Hugging Face CLIP id or folder, used instead of --model")
    batch_size: Pairs = flag(16, "pairs in a batch of the gradient pass")
    eval_batch_size: Count = flag(help="pictures or texts in a batch of evaluations", by="evaluation_batch")


@dataclass(frozen=True)
class Sources:
    """The forget and retain sets of some names."""

    celeb_name: tuple[str, ...] = flag(
        help="names to forget; underscores stand for spaces", parse=checked_name, aliases=("--name",)
    )
    forget_data: str = flag("", "tar of the forget set, with one name only; without it {tar-dir}/{name}.tar")
    tar_dir: str = flag("data/tar_files", "folder of the curated forget sets")
    train_data: str = flag("data/laion/laion400m/00000.tar", "tar of the retain set")


@dataclass(frozen=True)
class Data(Sources):
    """What is forgotten, what is retained, and what a candidate is judged by."""

    val_data: str = flag("data/celeba", "CelebA folder")
    imagenet_val: str = flag("data/ImageNet/val", "ImageNet validation folder")
    imagenet_share: Share = flag(help="fraction of ImageNet's pictures that is used, drawn by --seed", by="objects_share")
    allow_missing: Fraction = flag(0.01, "fraction of each task's pictures that may be missing or damaged")
    mia_data: str = flag(
        "data/cc3m/00000.tar", "tar of pairs of another corpus, for membership inference with --protocol paper"
    )
    swap_splits: bool = flag(False, "choose on the test split and report on the validation split")
    select_pictures: Whole = flag(4000, "retained pictures of each task that candidates are chosen by, at most")
    trace: Whole = flag(0, "retained pictures of each task that are scored at every candidate, for plots")
    cache_gb: Finite = flag(-1.0, "GB of kept activations; below 0: a quarter of the free memory")
    fa_k: Whole = flag(0, "k of the FA@k that brackets the step; 0 derives it from the number of names")
