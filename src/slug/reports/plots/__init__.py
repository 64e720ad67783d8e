"""Plots. Series differ by marker and line style as well as by colour, so that they can be told apart in grey."""

from slug.reports.plots.clip import costs, pareto, pictures, relearning, similarity, steps, tradeoff, variants  # noqa: F401
from slug.reports.plots.layout import MARKERS, STYLES, save  # noqa: F401
from slug.reports.plots.pipelines import answers, assistant, canvas, sheet  # noqa: F401
from slug.reports.plots.ranks import ranks  # noqa: F401
from slug.reports.plots.samples import sample_cosines, sample_fronts  # noqa: F401
from slug.reports.plots.timing import bars, growth  # noqa: F401
