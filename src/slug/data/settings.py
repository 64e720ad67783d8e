"""Settings that several data stages share; this module imports nothing slow."""

from dataclasses import dataclass

from slug.cli import Count, Fraction, Whole, flag
from slug.pool import DISTRIBUTORS, LOCAL
from slug.settings import Data


@dataclass(frozen=True)
class Missing:
    """How much of an evaluation may be lost."""

    allow_missing: Fraction = flag(Data.allow_missing, "fraction of the pictures that may be missing or damaged")


@dataclass(frozen=True)
class Download:
    """How img2dataset fetches pictures; the defaults are the paper's settings where it states them."""

    metadata_dir: str = flag("data/laion/metadata", "folder of LAION's metadata, *.parquet")
    distributor: str = flag(LOCAL, "where processes run", choices=tuple(DISTRIBUTORS))
    processes: Count = flag(16, "processes of img2dataset; each works on one shard at a time")
    threads: Count = flag(128, "connections of each process")
    image_size: Count = flag(256, "side in pixels to which pictures are resized")
    retries: Whole = flag(2, "further attempts for each picture")
    timeout: Count = flag(10, "seconds to wait for an answer")
