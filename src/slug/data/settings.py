"""Settings that several data stages share; this module imports nothing slow."""

from dataclasses import dataclass

from slug.cli import flag
from slug.pool import DISTRIBUTORS, LOCAL
from slug.settings import Data


@dataclass(frozen=True)
class Whole:
    """How much of an evaluation may be lost."""

    allow_missing: float = flag(Data.allow_missing, "fraction of the pictures that may be missing or damaged")


@dataclass(frozen=True)
class Download:
    """How img2dataset fetches pictures; the defaults are the paper's settings where it states them."""

    metadata_dir: str = flag("data/laion/metadata", "folder of LAION's metadata, *.parquet")
    distributor: str = flag(LOCAL, "where processes run", choices=tuple(DISTRIBUTORS))
    processes: int = flag(16, "processes of img2dataset; each works on one shard at a time")
    threads: int = flag(128, "connections of each process")
    image_size: int = flag(256, "side in pixels to which pictures are resized")
    retries: int = flag(2, "further attempts for each picture")
    timeout: int = flag(10, "seconds to wait for an answer")
