"""Plots. Series differ by marker and line style as well as by colour, so that they can be told apart in grey.

All are made for a column of 5.5 inches. Titles say what is shown; the split that figures are of is said where a plot is
quoted.
"""

from slug.reports.plots.comparison import costs, relearning, similarity, tradeoff, variants  # noqa: F401
from slug.reports.plots.layout import MARKERS, STYLES, save  # noqa: F401
from slug.reports.plots.pipelines import assistant, canvas  # noqa: F401
from slug.reports.plots.ranks import ranks  # noqa: F401
from slug.reports.plots.samples import sample_cosines, sample_fronts  # noqa: F401
from slug.reports.plots.searches import pareto, reached, steps  # noqa: F401
from slug.reports.plots.sheets import cells, compared, pictures, sheet  # noqa: F401
from slug.reports.plots.timing import bars, growth  # noqa: F401
