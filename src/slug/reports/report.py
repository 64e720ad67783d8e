"""The old names, until the last caller is converted."""

from slug.reports.assistants import curve_report as assistant_curve  # noqa: F401
from slug.reports.assistants import report as assistant  # noqa: F401
from slug.reports.bench import table as bench_table  # noqa: F401
from slug.reports.clip_report import draw_steps, markdown  # noqa: F401
from slug.reports.clip_tables import table  # noqa: F401
from slug.reports.markdown import fill_blocks, publish  # noqa: F401
from slug.reports.pipelines import report as canvas  # noqa: F401
from slug.reports.several import parts_report as multi_parts  # noqa: F401
from slug.reports.several import report as multi  # noqa: F401
