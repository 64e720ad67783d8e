"""EmojiCanvas, the embedded world: art of nine open icon sets in the layouts of LAION, CelebA, ImageNet, UnlearnCanvas."""
