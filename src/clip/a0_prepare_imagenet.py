"""Unpack ImageNet's validation pictures into one folder a class, from the official tar and devkit.

Example: python src/clip/a0_prepare_imagenet.py      (as scripts/valprep.sh does; both archives in data/ImageNet/)
Writes data/ImageNet/val/{WordNet id}/*.JPEG. Resumable; what is complete is kept.
"""

from slug import cli, files
from slug.data import preparation


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--tar", default="data/ImageNet/ILSVRC2012_img_val.tar", help="the validation pictures")
    parser.add_argument("--devkit", default="data/ImageNet/ILSVRC2012_devkit_t12.tar.gz", help="what they show")
    parser.add_argument("--imagenet-val", default="data/ImageNet/val", help="folder to write")
    parser.add_argument("--any-archive", action="store_true", help="do not check that the archives are the official ones")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    remedy = "ImageNet asks for registration at image-net.org; see data/README.md"
    tar = files.existing(args.tar, "ImageNet's validation pictures", remedy)
    devkit = files.existing(args.devkit, "ImageNet's devkit", remedy)
    val = files.resolve(args.imagenet_val)
    pictures, classes, done = preparation.unpack_imagenet(tar, devkit, val, checksum=not args.any_archive)
    print(f"{'' if done else 'complete, kept: '}{pictures} pictures of {classes} classes -> {val}")


if __name__ == "__main__":
    cli.exit_with(main)
