"""Unpack ImageNet's validation pictures into one folder for each class, from the official tar and devkit.

Example: python src/clip/a0_prepare_imagenet.py      (as scripts/valprep.sh does; both archives in data/ImageNet/)
Writes data/ImageNet/val/{WordNet id}/*.JPEG. A run that was stopped resumes where it was; a complete folder is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Folder, flag, group
from slug.settings import Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    tar: str = flag("data/ImageNet/ILSVRC2012_img_val.tar", "archive of the validation pictures")
    devkit: str = flag("data/ImageNet/ILSVRC2012_devkit_t12.tar.gz", "archive that holds their labels")
    imagenet_val: Folder = flag("data/ImageNet/val", "folder to write")
    any_archive: bool = flag(False, "do not check that the archives are the official ones")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.data import preparation

    remedy = "ImageNet asks for registration at image-net.org; see data/README.md"
    tar = files.existing(settings.tar, "ImageNet's validation pictures", remedy)
    devkit = files.existing(settings.devkit, "ImageNet's devkit", remedy)
    val = files.resolve(settings.imagenet_val)
    pictures, classes, done = preparation.unpack_imagenet(tar, devkit, val, checksum=not settings.any_archive)
    print(f"{'' if done else 'kept: '}{pictures} pictures of {classes} classes -> {val}")


if __name__ == "__main__":
    cli.exit_with(main)
