"""The methods that SLUG is compared with: FT, GA, GAFT, SalUn, SSD and their _o forms (paper, table 1).

Example: python src/clip/a3_unlearn_compare.py --celeb-name Elon_Musk --unlearn-method ga salun --lr 1e-6 1e-7
Needs a1_compute_grad.py, for calc_grad and for what these methods read (give a1 their names). Every method starts from the
original weights once for each learning rate; every epoch is a candidate. One rule chooses among all candidates on the
validation split, as it does for SLUG. Where the best setting is the first or last of its grid, the next half decade is tried
too (--grow). Writes under results/clip/ for each method and name a .json record and a .csv of all candidates, and under
compare/ a log for each learning rate. A run that was stopped continues after the last (name, method, learning rate) that it
finished. Valid records are kept.
"""

from slug import cli
from slug.settings import Compare


def parse_args(argv=None) -> Compare:
    return cli.parse(__doc__, Compare, argv)


def main(argv=None):
    settings = parse_args(argv)
    from slug.experiments import comparison  # here: --help needs no torch

    comparison.Comparison(settings).run()


if __name__ == "__main__":
    cli.exit_with(main)
