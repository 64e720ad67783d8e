"""The methods SLUG is compared with: FT, GA, GAFT, SalUn, SSD and their `_o` forms (paper, table 1).

Example: python src/clip/a3_unlearn_compare.py --celeb-name Elon_Musk --unlearn-method ga salun --lr 1e-6 1e-7
Needs a1_compute_grad.py (and, for ssd, its --unlearn-method calc_importance). Every method starts from the original weights,
once a learning rate; every epoch is a candidate, and one rule chooses among all of them on the validation split, as it does
for SLUG. Where the best setting is the first or last of its grid, the next half decade is tried too (--grow). Writes under
results/clip/: per name and method a .json record and a .csv of all candidates; under compare/ a log a learning rate.
A run that was stopped goes on after the last (name, method, learning rate) it finished; valid records are kept.
"""

from tqdm import tqdm

from slug import cli, methods
from slug.artifacts import records
from slug.errors import SlugError
from slug.experiments.comparison import Comparison
from slug.methods import ssd


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.set_defaults(batch_size=32)
    parser.add_argument("--grad-batch-size", type=int, default=16, help="the --batch-size that a1_compute_grad.py was given")
    default = ["ft", "ga", "gaft", "salun", "ssd"]
    parser.add_argument("--unlearn-method", nargs="+", choices=methods.NAMES, default=default, help="what to compare with")
    parser.add_argument("--lr", nargs="+", type=float, default=[1e-5, 1e-6, 1e-7], help="learning rates")
    parser.add_argument(
        "--grow", type=int, default=4, help="half decades beyond --lr, at most, while the best is at its end"
    )
    parser.add_argument("--selection", nargs="+", type=float, default=[ssd.SELECTION], help="selection weights of ssd")
    parser.add_argument(
        "--settings-from", default="", help="table.csv of an earlier comparison: repeat what it chose, no more"
    )
    parser.add_argument("--wd", type=float, default=0.1, help="AdamW's weight decay")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the sets; each is a candidate")
    parser.add_argument(
        "--forget-epochs", type=int, default=10, help="the same for ga, whose passes see the forget set alone"
    )
    parser.add_argument("--warmup", type=int, default=0, help="optimiser steps")
    parser.add_argument("--force", action="store_true", help="do again what is valid")
    args = parser.parse_args(argv)
    if min(*args.lr, args.epochs, args.forget_epochs) <= 0:
        raise SlugError("--lr, --epochs and --forget-epochs must be above 0")
    return args


def main(argv=None):
    args = parse_args(argv)
    comparison = Comparison(args)
    for method in dict.fromkeys(args.unlearn_method):
        if method == "raw":
            for name in comparison.names:
                tqdm.write(f"{name}, raw: {records.log_line(0, comparison.start(name))}")
            continue
        for names in comparison.together(method):
            for record in comparison.compare(names, method):
                tqdm.write(records.one_line(record))
    comparison.bar.close()


if __name__ == "__main__":
    cli.exit_with(main)
